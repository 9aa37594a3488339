"""A talk that more than one test file teaches."""

CHAT = [
    {"role": "system", "content": "あなたはさくら。"},
    {"role": "user", "content": "ただいま〜😮‍💨"},
    {"role": "assistant", "content": "おかえり！🌸"},
    {"role": "user", "content": "今日の晩ごはん、\n何にしよ"},
    {"role": "assistant", "content": "えっとね…オムライス、は？🍳"},
]
