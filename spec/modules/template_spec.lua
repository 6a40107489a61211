-- template_spec.lua: what is written, and that nothing is written in doubt.
local host = require "host"
local json = require "json"
local template = require "template"

local function render(text, vars, opts)
  local out, err = template.render(text, vars, opts)
  if out == nil then
    error(tostring(err), 2)
  end
  return out
end

local function refused(text, vars, opts)
  local out, err = template.render(text, vars, opts)
  assert.is_nil(out)
  assert.equal("template", err.code)
  return err
end

describe("template values #unit", function()
  it("stand where their name stands", function()
    assert.equal("a files.example.com b", render("a files.{{ domain }} b", { domain = "example.com" }))
    assert.equal("x1truex", render("x{{n}}{{  b  }}x", { n = 1, b = true }))
    assert.equal("", render("", {}))
    assert.equal("no tags { } {x} %} }}", render("no tags { } {x} %} }}", {}))
  end)

  it("are found by dots, brackets and list index", function()
    local vars = { a = { b = { c = 1 }, ["uptime-kuma"] = 2, [1] = "one", [2] = "two" }, k = "b", n = 2 }
    assert.equal("1 2 one two 1 two", render(
      "{{ a.b.c }} {{ a['uptime-kuma'] }} {{ a[1] }} {{ a.2 }} {{ a[k]['c'] }} {{ a[n] }}", vars))
  end)

  it("may be texts and numbers written in the template", function()
    assert.equal("}} -3 x", render("{{ '}}' }} {{ -3 }} {{ \"x\" }}", {}))
  end)

  it("are refused when undefined, with file, line, column and the nearest name", function()
    local err = refused("ok\n  caf\u{e9} {{ domian }}", { domain = "x" }, { name = "site.conf" })
    assert.equal("site.conf", err.file)
    assert.equal(2, err.line)
    assert.equal(11, err.column)
    assert.matches("site.conf:2:11: 'domian' is undefined; did you mean 'domain'?", err.message, 1, true)
    assert.matches("'tool.prot' is undefined; did you mean 'port'?",
      refused("{{ tool.prot }}", { tool = { port = 1 } }).message, 1, true)
    local far = refused("{{ nothing_like_it }}", { domain = "x" }).message
    assert.is_nil(far:find("did you mean", 1, true))
    assert.matches("undefined", refused("{{ l[3] }}", { l = { 1, 2 } }).message)
  end)

  it("are refused when they have no parts, or no form as text", function()
    assert.matches("'a' is a string and has no parts", refused("{{ a.b }}", { a = "x" }).message, 1, true)
    for _, value in ipairs { { {} }, { { 1 } }, { json.null }, { print }, { 0 / 0 } } do
      refused("{{ v }}", { v = value[1] })
    end
  end)

  it("know the spec's placeholders by the parameters' names", function()
    assert.equal("acme", render("{{ tenant_id }}", { tenant = "acme" }))
    assert.equal("ghost nextcloud", render("{{ selected_tools | join(' ') }}", { tools = { "ghost", "nextcloud" } }))
    assert.equal("own", render("{{ tenant_id }}", { tenant = "acme", tenant_id = "own" }))
    assert.equal("10.0.0.1", render("{{ server_ip }}", { host = "10.0.0.1" }, { aliases = { server_ip = "host" } }))
    refused("{{ server_ip }}", {}, { aliases = { server_ip = "host" } })
  end)

  it("keep false apart from undefined", function()
    assert.equal("false", render("{{ f }}", { f = false }))
  end)

  it("come through a metatable as well", function()
    assert.equal("1", render("{{ a }}", setmetatable({}, { __index = { a = 1 } })))
  end)
end)

describe("template conditions #unit", function()
  local function test(expr, vars)
    return render("{% if " .. expr .. " %}yes{% else %}no{% endif %}", vars or {})
  end

  it("hold false, null, empty text and the empty table to be false", function()
    local vars = { f = false, n = json.null, e = "", t = {}, z = 0, s = "x", l = { 1 }, m = { a = 1 },
      p = host.secret("pw", "12345678") }
    for _, name in ipairs { "f", "n", "e", "t", "false", "null", "''" } do
      assert.equal("no", test(name, vars), name)
    end
    for _, name in ipairs { "z", "s", "l", "m", "p", "true", "1" } do
      assert.equal("yes", test(name, vars), name)
    end
  end)

  it("compare", function()
    local vars = { a = 1, b = "x", l = { "x", 2 }, m = { k = 1 }, n = json.null }
    for expr, want in pairs {
      ["a == 1"] = "yes", ["a ~= 1"] = "no", ["a != 2"] = "yes", ["b == 'x'"] = "yes",
      ["a == b"] = "no", ["'x' in l"] = "yes", ["2 in l"] = "yes", ["3 in l"] = "no",
      ["'k' in m"] = "yes", ["'j' in m"] = "no", ["'bc' in 'abcd'"] = "yes", ["not ('x' in l)"] = "no",
      ["n == null"] = "yes",
    } do
      assert.equal(want, test(expr, vars), expr)
    end
  end)

  it("bind not tighter than and, and tighter than or", function()
    local vars = { t = true, f = false }
    for expr, want in pairs {
      ["t or f and f"] = "yes", ["(t or f) and f"] = "no", ["not f and t"] = "yes", ["not t or t"] = "yes",
      ["not (t or t)"] = "no", ["not not t"] = "yes", ["f or f or t"] = "yes", ["t and t and f"] = "no",
      ["((t))"] = "yes",
    } do
      assert.equal(want, test(expr, vars), expr)
    end
  end)

  it("do not look up what a short cut skips, but defined() asks", function()
    assert.equal("yes", test("true or nowhere"))
    assert.equal("no", test("false and nowhere.x"))
    assert.equal("no", test("defined(a)"))
    assert.equal("no", test("defined(a.b.c)", { a = {} }))
    assert.equal("yes", test("defined(a.b) and a.b == 1", { a = { b = 1 } }))
    assert.equal("yes", test("defined(f)", { f = false }))
    refused("{% if nowhere %}{% endif %}", {})
  end)

  it("choose one branch", function()
    local text = "{% if a == 1 %}one{% elif a == 2 %}two{% elif a == 3 %}three{% else %}more{% endif %}."
    for a, want in ipairs { "one.", "two.", "three.", "more." } do
      assert.equal(want, render(text, { a = a }))
    end
    assert.equal(".", render("{% if a %}x{% if a %}y{% endif %}z{% endif %}.", { a = false }))
    assert.equal("xyz.", render("{% if a %}x{% if a %}y{% endif %}z{% endif %}.", { a = true }))
  end)

  it("never compare a secret", function()
    local err = refused("{% if p == 'canary-value' %}x{% endif %}", { p = host.secret("pw", "canary-value") })
    assert.matches("secret", err.message)
  end)
end)

describe("template loops #unit", function()
  it("go through lists in order", function()
    assert.equal("a,b,c", render("{% for x in l %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}",
      { l = { "a", "b", "c" } }))
    assert.equal("1a2b", render("{% for i, x in l %}{{ i }}{{ x }}{% endfor %}", { l = { "a", "b" } }))
    assert.equal("[1/2 true][2/2 false]", render(
      "{% for x in l %}[{{ loop.index }}/{{ loop.length }} {{ loop.first }}]{% endfor %}", { l = { 7, 8 } }))
  end)

  it("go through maps by sorted keys", function()
    assert.equal("A=3 a=1 b=2 ",
      render("{% for k, v in m %}{{ k }}={{ v }} {% endfor %}", { m = { b = 2, a = 1, A = 3 } }))
    assert.matches("for key, value", refused("{% for x in m %}{% endfor %}", { m = { a = 1 } }).message)
  end)

  it("nest, and hide outer names only inside", function()
    assert.equal("ab12ab2 x", render(
      "{% for x in l %}{% for y in x.c %}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}{% if true %}"
        .. "{% for x in m %}{{ x }}{% endfor %}{% endif %}{{ n }} {{ x }}",
      { l = { { c = { "a", "b" } }, { c = {} } }, m = { "a", "b" }, n = 2, x = "x" }))
  end)

  it("do nothing for what is empty", function()
    assert.equal("..", render(".{% for x in l %}{{ x }}{% endfor %}.", { l = {} }))
    assert.equal("..", render(".{% for k, v in l %}{{ k }}{% endfor %}.", { l = json.array() }))
  end)

  it("need a list or a map", function()
    for _, value in ipairs { "abc", 3, true } do
      assert.matches("list or a map", refused("{% for x in v %}{% endfor %}", { v = value }).message)
    end
  end)

  it("know loop only inside", function()
    refused("{{ loop.index }}", {})
    refused("{% for x in l %}{{ loop.nix }}{% endfor %}", { l = { 1 } })
  end)

  it("end although someone wants them not to", function()
    local l = {}
    for i = 1, 300 do
      l[i] = i
    end
    local err = refused("{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}",
      { l = l })
    assert.matches("too long", err.message)
    err = refused("{% for a in l %}{% for b in l %}0123456789{% endfor %}{% endfor %}", { l = l }, { limit = 1000 })
    assert.matches("larger than 1000 bytes", err.message)
  end)
end)

describe("template white space #unit", function()
  it("loses the line of a tag that stands alone", function()
    assert.equal("a\n  b\nc\n", render("a\n  {% if true %}  \n  b\n\t{% endif %}\nc\n", {}))
    assert.equal("a\r\nb\r\n", render("a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n", {}))
    assert.equal("a\n", render("a\n  {# nothing\n here #}\n", {}))
    assert.equal("a\n", render("a\n{% if true %}{% endif %}", {}))
    assert.equal("b\n", render("{% if true %}\nb\n{% endif %}", {}))
  end)

  it("keeps the line of a tag that has company", function()
    assert.equal("a\nb \nc", render("a\nb {% if true %}\n{% endif %}c", {}))
    assert.equal("  x\n", render("  {{ x }}\n", { x = "x" }))
  end)

  it("is eaten by - on the side where it stands", function()
    assert.equal("ab", render("a \n {{- 'b' }}", {}))
    assert.equal("ba", render("{{ 'b' -}} \n a", {}))
    assert.equal("abc", render("a\n{%- if true -%}\n b \n{%- endif -%}\n c", {}))
    assert.equal("ab", render("a {#- x -#} b", {}))
  end)
end)

describe("template raw blocks and comments #unit", function()
  it("leave what stands in them alone", function()
    assert.equal("docker ps --format '{{.Names}}: {{.Status}}'",
      render("docker ps --format '{% raw %}{{.Names}}: {{.Status}}{% endraw %}'", {}))
    assert.equal("{% if x %}{{ '", render("{% raw %}{% if x %}{{ '{% endraw %}", {}))
    assert.equal("a\n{{ b }}\nc\n", render("a\n{% raw %}\n{{ b }}\n{% endraw %}\nc\n", {}))
  end)

  it("are hinted at where they were forgotten", function()
    assert.matches("raw", refused("{{.Names}}", {}).message)
  end)

  it("write no comment", function()
    assert.equal("ab", render("a{# {{ nope }} {% if ' #}b", {}))
  end)
end)

describe("template syntax #unit", function()
  it("is checked also where a run would not come by", function()
    for text, part in pairs {
      ["{{ a"] = "without",
      ["{% if a"] = "without",
      ["{# a"] = "without",
      ["{{ 'a }}"] = "without",
      ["{{ }}"] = "a name expected",
      ["{{ a b }}"] = "the end of the tag",
      ["{{ a | }}"] = "a filter expected",
      ["{{ a | nope }}"] = "no filter 'nope'",
      ["{{ a | join }}"] = "( expected",
      ["{{ a | join(1) | sh }}x{{ b }}"] = nil,
      ["{{ a[1 }}"] = "] expected",
      ["{{ a. }}"] = "a name expected",
      ["{% if %}{% endif %}"] = "a name expected",
      ["{% if a == %}{% endif %}"] = "a name expected",
      ["{% if (a %}{% endif %}"] = ") expected",
      ["{% if a %}"] = "without an end",
      ["{% for x in l %}"] = "without an end",
      ["{% raw %}"] = "endraw",
      ["{% endif %}"] = "no 'if'",
      ["{% else %}"] = "no 'if'",
      ["{% endfor %}"] = "no 'for'",
      ["{% if a %}{% endfor %}"] = "no 'for'",
      ["{% for x in l %}{% endif %}{% endfor %}"] = "no 'if'",
      ["{% if a %}{% else %}{% elif b %}{% endif %}"] = "no 'if'",
      ["{% if a %}{% else %}{% else %}{% endif %}"] = "no 'if'",
      ["{% for in l %}{% endfor %}"] = "expected",
      ["{% for x l %}{% endfor %}"] = "in expected",
      ["{% set x = 1 %}"] = "no tag 'set'",
      ["{% if false %}{{ a | nope }}{% endif %}"] = "no filter",
      ["{% endraw %}"] = "no tag",
    } do
      local ok, err = template.check(text)
      assert.is_nil(ok, text)
      assert.matches(part, err.message, 1, true)
    end
  end)

  it("names the place of the mistake", function()
    local err = refused("line\n\n  {{ a | nope }}", { a = 1 }, { name = "f" })
    assert.equal(3, err.line)
    assert.equal(10, err.column)
    assert.equal("f:3:10: there is no filter 'nope'", err.message)
  end)

  it("has a limit to its depth", function()
    refused(("{% if true %}"):rep(33) .. ("{% endif %}"):rep(33), {})
    assert.equal("", render(("{% if true %}"):rep(32) .. ("{% endif %}"):rep(32), {}))
    refused("{% if " .. ("("):rep(100) .. "true" .. (")"):rep(100) .. " %}{% endif %}", {})
    refused("{{ " .. ("a["):rep(100) .. "1" .. ("]"):rep(100) .. " }}", { a = {} })
  end)

  it("is read in linear time", function()
    local start = os.clock()
    render(("{ { {{ a }} {# x #}\n {% if a %} {% endif %}"):rep(20000), { a = 1 })
    refused(("{{ a "):rep(100000), { a = 1 })
    render((" "):rep(1000000) .. "{% if a %}" .. (" "):rep(1000000) .. "{% endif %}", { a = 1 })
    assert.is_true(os.clock() - start < 20)
  end)

  it("raises for misuse", function()
    for _, args in ipairs {
      {}, { 1 }, { {} }, { host.secret("t", "12345678"), {} }, { "x", 1 }, { "x", {}, 1 }, { "x", {}, { nope = 1 } },
      { "x", {}, { escape = "nope" } }, { "x", {}, { escape = "lower" } }, { "x", {}, { aliases = 1 } },
      { "x", {}, { aliases = { a = 1 } } }, { "x", {}, { limit = 0 } }, { "x", {}, { name = 1 } },
    } do
      assert.is_false(pcall(template.render, table.unpack(args, 1, 3)))
    end
    assert.is_false(pcall(template.check))
    assert.is_false(pcall(template.check, "x", { aliases = {} }))
  end)

  it("check lists the names that are used", function()
    assert.same({ "a", "b", "c", "k", "l", "n", "tenant_id" }, template.check [[
      {{ a.x[k] | sh }} {% if not b and c == 'x' %}{% for x in l %}{{ x }}{{ loop.index }}{% endfor %}
      {% else %}{{ tenant_id }}{% endif %}{{ n }}{{ a }}]])
    assert.same({ "x" }, template.check "{% for x in x %}{{ x }}{% endfor %}")
    assert.same({}, template.check "text")
  end)
end)

describe("template filters #unit", function()
  it("are applied one after the other", function()
    assert.equal("'A B'", render("{{ a | upper | sh }}", { a = "a b" }))
    assert.equal("a,b", render("{{ l | join(',') }}", { l = { "a", "b" } }))
    assert.equal("x:\n  a\n  b", render("x:\n  {{ t | indent(2) }}", { t = "a\nb" }))
    assert.equal([["{\"a\":1}"]], render("{{ m | json | yaml }}", { m = { a = 1 } }))
  end)

  it("must fit the kind of value", function()
    refused("{{ l | url }}", { l = { 1 } })
    refused("{{ s | join(',') }}", { s = "x" })
    refused("{{ l | indent(2) }}", { l = {} })
    refused("{{ m | join(',') }}", { m = { a = 1 } })
    refused("{{ s | indent('x') }}", { s = "x" })
    refused("{{ l | join(1) }}", { l = {} })
  end)

  it("come from the option escape where a value has none for its place", function()
    local vars = { a = "it's $5", b = "x" }
    assert.equal([[A="it's"]], render("A={{ a }}", { a = "it's" }, { escape = "env" }))
    assert.equal([[A='it'\''s $5' x]], render("A={{ a }} {{ b }}", vars, { escape = "sh" }))
    assert.equal("A='X Y'", render("A={{ b | upper }}", { b = "x y" }, { escape = "env" }))
    assert.equal("A=it's $5", render("A={{ a | raw }}", vars, { escape = "env" }))
    assert.equal("A=it%27s%20%245", render("A={{ a | url }}", vars, { escape = "env" }))
  end)

  it("may be demanded everywhere", function()
    assert.matches("demanded", refused("{{ a }}", { a = 1 }, { escape = "demand" }).message)
    assert.matches("demanded", refused("{{ a | upper }}", { a = 1 }, { escape = "demand" }).message)
    assert.equal("1", render("{{ a | raw }}", { a = 1 }, { escape = "demand" }))
    assert.is_nil((template.check("{{ a }}", { escape = "demand" })))
  end)

  it("refuse quotes that do not fill the place", function()
    local vars = { v = "a b", s = "ab" }
    for _, text in ipairs {
      "URL=postgres://u:{{ v | env }}@h", "A={{ v | env }}x", "image: x:{{ v | yaml }}", 'a: "{{ v | yaml }}"',
      "a: {{ v | yaml }}x", "server_name x.{{ v | nginx }};", 'x "{{ v | sh }}"', "x '{{ v | sh }}'",
      '"{{ v | json }}"', "image: {{ v | compose }}:1",
    } do
      assert.matches("inside a word", refused(text, vars).message)
    end
    for text, want in pairs {
      ["A={{ v | env }}"] = "A='a b'", ["A={{ v | env }}\nB"] = "A='a b'\nB", ["a: {{ v | yaml }}\n"] = 'a: "a b"\n',
      ["a: [{{ v | yaml }}, {{ v | yaml }}]"] = 'a: ["a b", "a b"]', ["x {{ v | nginx }};"] = 'x "a b";',
      ["x.{{ s | nginx }};"] = "x.ab;", ["H={{ s | env }}:80"] = "H=ab:80", ["a={{ v | sh }};"] = "a='a b';",
      ["{{ v | yaml }}: 1"] = '"a b": 1', ["A={{ v | env }}{% if s %}\n{% endif %}"] = "A='a b'\n",
      ["p: {{ 80 | yaml }}:80"] = "p: 80:80",
    } do
      assert.equal(want, render(text, vars))
    end
  end)
end)

describe("template secrets #unit", function()
  local secret = host.secret("db.password", "canary'pass word")

  it("make the whole result a secret that bears the template's name", function()
    local out = render("PW={{ p | env }}\n", { p = secret }, { name = "ghost.env" })
    assert.equal("[secret rendered ghost.env]", tostring(out))
    assert.equal("PW=\"canary'pass word\"\n", host.reveal(out))
  end)

  it("pass every filter", function()
    for filter, want in pairs {
      raw = "canary'pass word", sh = [['canary'\''pass word']], env = [["canary'pass word"]],
      json = [["canary'pass word"]], yaml = [["canary'pass word"]], compose = [["canary'pass word"]],
      nginx = [["canary'pass word"]], url = "canary%27pass%20word", upper = "CANARY'PASS WORD",
      lower = "canary'pass word", ["indent(2)"] = "canary'pass word",
    } do
      local prefix = filter == "env" and "A=" or ""
      assert.equal(prefix .. want, host.reveal(render(prefix .. "{{ p | " .. filter .. " }}", { p = secret })), filter)
    end
    assert.equal("x,canary'pass word", host.reveal(render("{{ l | join(',') }}", { l = { "x", secret } })))
    assert.equal([[{"a":["canary'pass word"]}]], host.reveal(render("{{ m | json }}", { m = { a = { secret } } })))
  end)

  it("are not shown by any error", function()
    for _, text in ipairs { "{{ p.x }}", "{{ p | join(',') }}", "{{ x }}{{ p }}", "A={{ p | env }}x", "{{ p[1] }}",
      "{% for x in p %}{% endfor %}", "{% if 'a' in p %}{% endif %}", "{{ p | nginx }}x{{ l[p] }}" } do
      local err = refused(text, { p = secret, l = {} })
      assert.is_nil((err.message .. tostring(err)):find("canary", 1, true), text)
    end
  end)

  it("that a branch leaves out do not count", function()
    assert.equal("x", render("{% if false %}{{ p }}{% endif %}x", { p = secret }))
  end)
end)
