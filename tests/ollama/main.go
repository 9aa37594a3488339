// What Ollama makes of a Modelfile and of chats: the commands that it reads, and the text that its model is given.
//
// The rules are those of ollama/ollama at v0.33.0-rc2 (commit fb30760, 2026-08-21), in our own words:
// parser/parser.go (how a Modelfile is read), server/routes.go (where SYSTEM goes), template/template.go (which values
// and functions a TEMPLATE has, and how messages are joined). The BOS token is the runner's and is not added here.
//
// In, on stdin: [{"modelfile": "…", "chats": [[{"role": "user", "content": "…"}, …], …]}, …]
// Out, on stdout: [{"commands": [["template", "…"], …], "texts": ["…", …], "error": "…"}, …]
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/template"
	"time"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Message is what a TEMPLATE sees of one.
type Message struct {
	Role, Content, Thinking, ToolName, ToolCallID string
	Images, ToolCalls                             []any
}

type job struct {
	Modelfile string      `json:"modelfile"`
	Chats     [][]message `json:"chats"`
}

type result struct {
	Commands [][2]string `json:"commands"`
	Texts    []string    `json:"texts"`
	Error    string      `json:"error"`
}

func main() {
	var jobs []job
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		panic(err)
	}
	results := make([]result, len(jobs))
	for i, j := range jobs {
		results[i] = run(j)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		panic(err)
	}
}

func run(j job) (out result) {
	commands, err := parse(j.Modelfile)
	out.Commands = commands
	if err != nil {
		out.Error = err.Error()
		return out
	}
	var source, system string
	for _, command := range commands {
		switch command[0] {
		case "template":
			source = command[1]
		case "system":
			system = command[1]
		}
	}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(source)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	for _, chat := range j.Chats {
		if chat[0].Role != "system" && system != "" {
			chat = append([]message{{"system", system}}, chat...)
		}
		var text strings.Builder
		if err := parsed.Execute(&text, values(chat)); err != nil {
			out.Error = err.Error()
			return out
		}
		out.Texts = append(out.Texts, text.String())
	}
	return out
}

var functions = template.FuncMap{
	"json": func(v any) string {
		text, _ := json.Marshal(v)
		return string(text)
	},
	"currentDate":      func(...string) string { return time.Now().Format("2006-01-02") },
	"yesterdayDate":    func(...string) string { return time.Now().AddDate(0, 0, -1).Format("2006-01-02") },
	"toTypeScriptType": func(any) string { return "any" },
}

// values joins adjacent messages of one role by an empty line, and all system messages, wherever they stand, into System.
func values(chat []message) map[string]any {
	var joined []*Message
	var system []string
	for _, m := range chat {
		if m.Role == "system" {
			system = append(system, m.Content)
		}
		if n := len(joined); n > 0 && joined[n-1].Role == m.Role && m.Role != "tool" {
			joined[n-1].Content += "\n\n" + m.Content
		} else {
			joined = append(joined, &Message{Role: m.Role, Content: m.Content})
		}
	}
	return map[string]any{
		"System":     strings.Join(system, "\n\n"),
		"Messages":   joined,
		"Tools":      []any(nil),
		"Response":   "",
		"Think":      false,
		"ThinkLevel": "",
		"IsThinkSet": false,
	}
}

var known = map[string]bool{
	"from": true, "license": true, "template": true, "system": true, "adapter": true, "draft": true, "renderer": true,
	"parser": true, "parameter": true, "message": true, "requires": true,
}

// parse reads commands: a name, blanks, a value up to the first line break at which its quotation marks, if it begins
// with any, are closed. Of the value only line breaks, tabs and what Go calls printable are kept.
func parse(text string) (commands [][2]string, err error) {
	rest := []rune(strings.TrimPrefix(strings.ToValidUTF8(text, "\uFFFD"), "\uFEFF"))
	word := func(ok func(rune) bool) (string, error) {
		n := 0
		for n < len(rest) && ok(rest[n]) {
			n++
		}
		if n == len(rest) || !blank(rest[n]) {
			return "", fmt.Errorf("no command: %q", string(rest[:n]))
		}
		name := string(rest[:n])
		rest = rest[n+1:]
		return name, nil
	}
	for len(rest) > 0 {
		if blank(rest[0]) || lineBreak(rest[0]) {
			rest = rest[1:]
			continue
		}
		if rest[0] == '#' {
			for len(rest) > 0 && !lineBreak(rest[0]) {
				rest = rest[1:]
			}
			continue
		}
		if !strconv.IsPrint(rest[0]) {
			rest = rest[1:]
		}
		name, err := word(letter)
		if err != nil {
			return commands, err
		}
		name = strings.ToLower(name)
		if !known[name] {
			return commands, fmt.Errorf("unknown command %q", name)
		}
		var role string
		switch name {
		case "from":
			name = "model"
		case "parameter":
			if name, err = word(func(r rune) bool { return letter(r) || r == '_' || r >= '0' && r <= '9' }); err != nil {
				return commands, err
			}
		case "message":
			if role, err = word(letter); err != nil {
				return commands, err
			}
			if role != "system" && role != "user" && role != "assistant" {
				return commands, fmt.Errorf("no role: %q", role)
			}
			role += ": "
		}
		var kept strings.Builder
		for {
			value, whole := unquote(strings.TrimSpace(kept.String()))
			if len(rest) == 0 || whole && lineBreak(rest[0]) {
				if !whole {
					return commands, fmt.Errorf("%s: a quotation mark is never closed", name)
				}
				commands = append(commands, [2]string{name, role + value})
				break
			}
			if strconv.IsPrint(rest[0]) || blank(rest[0]) || lineBreak(rest[0]) {
				kept.WriteRune(rest[0])
			}
			rest = rest[1:]
		}
	}
	for _, command := range commands {
		if command[0] == "model" {
			return commands, nil
		}
	}
	return commands, errors.New("no FROM")
}

func unquote(text string) (value string, whole bool) {
	for _, mark := range []string{`"""`, `"`} {
		if strings.HasPrefix(text, mark) {
			if len(text) >= 2*len(mark) && strings.HasSuffix(text, mark) {
				return text[len(mark) : len(text)-len(mark)], true
			}
			return "", false
		}
	}
	return text, true
}

func blank(r rune) bool { return r == ' ' || r == '\t' }

func lineBreak(r rune) bool { return r == '\n' || r == '\r' }

func letter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
