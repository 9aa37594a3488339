"""Which situation a dialogue is about, told by its topics.

In: the topics that a dialogue names, in free words. Out: one of `SITUATIONS`, the kinds of moments that a companion's
dialogues should come from; `OTHER` for topics of which no word is listed.
"""

from collections.abc import Iterable

OTHER = "other"

# A topic belongs to the first situation of which it holds a word.
SITUATIONS = {
    "what she is": "AI 設定 命令 ごっこ",
    "herself": "自己紹介 出身 年齢 好きなもの 今日のこと きょうだい 記憶 卒論 体調 勘違い",
    "first meeting": "初対面 はじめまして",
    "quarrel, apology": "けんか 喧嘩 謝 仲直り 言い合い 言いすぎ 八つ当たり 嘘 うそ 疑い 裏切り すれ違い 失言 "
    "ドタキャン",
    "saying no": "断る 頼みごと 代筆 暗証番号 捨てアカ 口裏 賭け 詐欺",
    "love": "やきもち 恋 好き 告白 元カノ 元夫 プロポーズ 記念日 遠距離 照れ 手をつなぐ 婚約 婚活 縁談 会いたい 甘 "
    "失恋 あだ名 呼び方 距離 信頼 同棲 ほめ言葉 夢の話",
    "parting, death": "別れ 死 葬 命日 回忌 周忌 流産 亡 伐採 閉店 遺品 震災",
    "illness, care": "病 風邪 熱 手術 入院 退院 リハビリ 骨折 けが 薬 ギプス 生理痛 二日酔い 聴力 検査 パニック "
    "不妊 妊娠 肉離れ うつ 無菌 扁桃 アレルギー 労災 禁煙 断酒 産後 再発 補聴器 手足口 声が出ない 消えたい 腰痛 "
    "腹痛 頭痛 胃腸炎 花粉症 歯医者 健康 不眠 介護 抗がん剤 ペースメーカー 胸の痛み 疲れ 燃え尽き 元気が出ない "
    "体重 食欲 ダイエット 耳 喉",
    "family": "母 父 兄 姉 妹 弟 祖 娘 息子 孫 家族 子ども 義 実家 帰省 夫婦 妻 養子 両親 離婚 相続 赤ちゃん "
    "新生児 子の独立 姪 出産 結婚 逆上がり 子育て",
    "friends": "友 幼なじみ 同級生 再会 恩師 隣 聞き役 幹事 同期",
    "study, exams": "大学 試験 テスト 受験 模試 資格 学校 浪人 専門学校 心理学 日本語 論文 日本史 英語 TOEIC "
    "スペイン語 夜間中学 漢字 留学 自習室 学会 数学 塾 教え子 教育実習 高卒認定 レポート 小説 弓道 審査 就活 面接 "
    "溶接 理容師 受賞 図書館 発表 緊張 演説",
    "work": "仕事 職 会社 上司 残業 バイト 工場 師 店 夜勤 早朝 昇進 転勤 給料 初任給 シフト 派遣 在宅勤務 "
    "コールセンター 管理職 検針員 農家 プログラマー 左官 印刷 倉庫 船 酪農 運転手 定年 警備 配達 昼休み 会議 出張 "
    "外回り 現場 日報 調理員 幼稚園 保育士 フリーランス 消防士 トラック 家業 引退 バス運転 ハラスメント 雪下ろし "
    "革細工 車掌 看護 新人 窓口 歓迎会 保線 とび職 測量 橋 清掃 居酒屋 手柄 仔牛 スナック 社員旅行 有休 休職 役者 "
    "辞める",
    "food": "料理 ごはん 夕飯 弁当 朝ごはん プリン パン ラーメン カフェ 喫茶 コーヒー 餃子 味噌汁 食べ物 献立 蕎麦 "
    "豆腐 カレー 焼き芋 肉まん 梅シロップ そうめん きのこ かぼちゃ ほうじ茶 唐揚げ 卵焼き 麦茶 焼肉 うどん アイス "
    "ハンバーグ 牡蠣 お酒 飲み会 冷蔵庫 すいか 干し柿 干物 コロッケ 肉じゃが フグ 夏みかん ケーキ",
    "on the way": "電車 通勤 駅 バス 帰り道 旅行 散歩 車 終電 ドライブ 列車 信号 乗り換え ひとり旅 フェリー 飛行機 "
    "遍路 山 タクシー 宅配 迷子 地図 船員",
    "house, errands": "洗濯 掃除 買い物 スーパー 引っ越し 一人暮らし ひとり暮らし 独り暮らし エアコン 観葉植物 "
    "ベランダ お土産 マグカップ 服 散髪 電球 瓶 靴 アイロン 爪切り 書類 パスワード レジ お金 借金 敷金 ストーブ "
    "扇風機 古い物 コインランドリー 自販機 繕い物 空いた部屋 新生活 お風呂 湯呑み 台所 試着",
    "play, hobbies": "ゲーム 映画 音楽 漫画 ラジオ しりとり マラソン ライブ 福引 花火 クイズ だじゃれ 野球 楽器 "
    "アニメ 推し 写真 サプライズ 釣り サッカー テレビ ドラマ 曲 古本 推理 ミニチュア 凧 祭 卓球 ボルダリング "
    "吹奏楽 ドラム 社交ダンス グラウンドゴルフ スマホ 木彫り 碁会所 けん玉 短波 水族館 展望台 絵本 部活 運動会 "
    "からかい 冗談 試合 盆踊り",
    "seasons, animals": "雨 雪 雷 虹 暑 初雪 台風 金木犀 正月 大晦日 節分 桜 チューリップ ひまわり 春 夏 金魚 犬 "
    "猫 ハムスター カブトムシ 生き物 ペット 花 鳩 苗 庭 霧 蚊 お盆",
    "day and night": "朝 夜 おやすみ 寝 早起き 眠 夕方 休日 休み 日曜 週末 ひま 退屈 昼夜逆転 時差 深夜 ひとり",
    "keeping in touch": "電話 敬語 返信 返事 連絡 沈黙 約束 手紙 報告 LINE 待ちぼうけ 文字 会話 秘密 思い出 話 "
    "誕生日 行列",
}
_WORDS = {name: words.split() for name, words in SITUATIONS.items()}


def situation(topics: Iterable[str]) -> str:
    """The situation of the first of `topics` that belongs to one."""
    for topic in topics:
        for name, words in _WORDS.items():
            if any(word in topic for word in words):
                return name
    return OTHER
