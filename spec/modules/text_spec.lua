-- text_spec.lua: every filter against the program that will read its output.
local host = require "host"
local json = require "json"
local text = require "text"

-- Values that break careless quoting; a password may hold any of these.
local nasty = {
  "simple", "with space", "it's", 'say "hi"', "a\\b", "back\\\\slash", "$HOME", "$(id)", "`id`", "a$b$$c", "#no",
  "x #y", "100%", "a=b", "=", "!bang!", "*", "~", "-n", "a;b", "a&b|c", "<>", "(x)", "{x}", "[x]", "tab\there",
  "/+=$'\"%#", "caf\u{e9}", "line\nbreak", "\r\n", "'", '"', "''", "{{x}}", ",", ":", "@", "-", "yes", "null", "1e3",
  "0x1f",  " lead", "trail ", "\u{2028}", "a'b\"c",
}

local function tmp(body)
  local path = os.tmpname()
  local f = assert(io.open(path, "wb"))
  f:write(body)
  f:close()
  return path
end

local function output_of(command)
  local p = assert(io.popen(command, "r"))
  local out = p:read("a")
  p:close()
  return out
end

local function python(program, body)
  local path, code = tmp(body), tmp(program)
  local out = output_of(("python3 %s %s 2>&1"):format(code, path))
  os.remove(path)
  os.remove(code)
  return out
end

local has_dotenv = output_of("python3 -c 'import dotenv; print(1)' 2>/dev/null") == "1\n"
local has_yaml = output_of("python3 -c 'import yaml; print(1)' 2>/dev/null") == "1\n"

describe("text.sh #unit", function()
  it("is one word to sh that comes out as it went in", function()
    for _, value in ipairs(nasty) do
      local path = tmp("printf '%s' " .. text.sh(value))
      assert.equal(value, output_of("sh " .. path))
      os.remove(path)
    end
  end)

  it("leaves the harmless bare and says whether it needed quotes", function()
    for _, value in ipairs { "abc", "/usr/bin/x-1", "a=b", "user@host:22", "1,2+3%" } do
      local word, quoted = text.sh(value)
      assert.equal(value, word)
      assert.is_false(quoted)
    end
    assert.same({ "''", true }, { text.sh "" })
    assert.same({ [['it'\''s']], true }, { text.sh "it's" })
  end)

  it("makes a word of each item of a list", function()
    assert.equal("a 'b c' 3", (text.sh { "a", "b c", 3 }))
    assert.equal("", (text.sh {}))
  end)

  it("refuses what no word can hold", function()
    for _, value in ipairs { "a\0b", { a = 1 }, { {} }, json.null, print } do
      local word, err = text.sh(value)
      assert.is_nil(word)
      assert.equal("value", err.code)
    end
  end)
end)

describe("text.env #unit", function()
  -- The documented reading of compose 2: '...' literal but for \', "..." with escapes and $.
  local function compose2(s)
    local q = s:sub(1, 1)
    if q == "'" then
      return (s:sub(2, -2):gsub("\\'", "'"))
    elseif q == '"' then
      assert.is_nil(s:find("$", 1, true))
      return (s:sub(2, -2):gsub("\\(.)", { n = "\n", r = "\r", ["\\"] = "\\", ['"'] = '"' }))
    end
    assert.is_nil(s:find("[%s$#'\"\\]"))
    return s
  end

  it("reads back as it was, by the rules of compose 2", function()
    for _, value in ipairs(nasty) do
      assert.equal(value, compose2((text.env(value))))
    end
  end)

  it("reads back as it was in compose 1, which uses python-dotenv", function()
    if not has_dotenv then
      return pending("python-dotenv is not installed")
    end
    local lines = {}
    for i, value in ipairs(nasty) do
      lines[i] = ("V%d=%s"):format(i, (text.env(value)))
    end
    local out = python([[
import dotenv, json, sys
v = dotenv.dotenv_values(sys.argv[1])
print(json.dumps([v["V%d" % (i + 1)] for i in range(len(v))]))
]], table.concat(lines, "\n") .. "\n")
    assert.same(nasty, { table.unpack(assert(json.decode(out))) })
  end)

  it("is harmless to a shell that sources it, escapes apart", function()
    for _, value in ipairs(nasty) do
      local word = text.env(value)
      if word:sub(1, 1) ~= '"' and not word:find("\\'", 1, true) then
        local path = tmp("V=" .. word .. "\nprintf '%s' \"$V\"")
        assert.equal(value, output_of("sh " .. path))
        os.remove(path)
      end
    end
  end)

  it("leaves base64, hex and URLs bare", function()
    for _, value in ipairs { "aB3+/9==", "deadbeef", "https://x.example:8443/a-b_c", "me@example.com" } do
      assert.same({ value, false }, { text.env(value) })
    end
    assert.equal("''", (text.env ""))
    assert.equal("80", (text.env(80)))
    assert.equal("true", (text.env(true)))
  end)

  it("refuses what the two read differently", function()
    for _, value in ipairs { "a${b}", "a$b\nc", "a$b\\\\c", "ends in \\", "a\0b", "${", "$'\n" } do
      local word, err = text.env(value)
      assert.is_nil(word, value)
      assert.equal("value", err.code)
    end
  end)
end)

describe("text.json and text.yaml #unit", function()
  it("write JSON that reads back as it was", function()
    for _, value in ipairs(nasty) do
      assert.equal(value, (json.decode((text.json(value)))))
    end
    local all = { list = { 1, 2.5, "x", true, { a = {} } }, empty = json.array(), n = json.null, f = 1.0 }
    assert.equal(json.encode(all), (text.json(all)))
  end)

  it("write YAML that reads back as it was", function()
    if not has_yaml then
      return pending("PyYAML is not installed")
    end
    local lines = {}
    for i, value in ipairs(nasty) do
      lines[i] = "- " .. text.yaml(value)
    end
    lines[#lines + 1] = "- " .. text.yaml { a = { 1, true, json.null, "no" }, ["k: #"] = json.array() }
    local out = python([[
import yaml, json, sys
print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding="utf-8"))))
]], table.concat(lines, "\n") .. "\n")
    local got = assert(json.decode(out))
    for i, value in ipairs(nasty) do
      assert.equal(value, got[i])
    end
    assert.equal('{"a":[1,true,null,"no"],"k: #":[]}', json.encode(got[#nasty + 1]))
  end)

  it("double the dollar for compose files only", function()
    assert.equal('"a$$b$$$$"', (text.compose "a$b$$"))
    assert.equal('"a$b"', (text.yaml "a$b"))
    assert.equal('{"k$$": "$$v"}', (text.compose { ["k$"] = "$v" }))
  end)

  it("leave numbers and booleans plain", function()
    for _, form in ipairs { "json", "yaml", "compose" } do
      assert.same({ "80", false }, { text[form](80) })
      assert.same({ "true", false }, { text[form](true) })
      assert.same({ "0.1", false }, { text[form](0.1) })
      assert.same({ "null", false }, { text[form](json.null) })
      assert.same({ '"80"', true }, { text[form]("80") })
    end
  end)

  it("refuse what they cannot hold", function()
    local deep = {}
    local at = deep
    for _ = 1, 40 do
      at[1] = {}
      at = at[1]
    end
    for _, value in ipairs { "\xff", { "\xc0\x80" }, 0 / 0, 1 / 0, print, { print }, { [1.5] = 1 }, deep } do
      for _, form in ipairs { "json", "yaml", "compose" } do
        local out, err = text[form](value)
        assert.is_nil(out)
        assert.equal("value", err.code)
      end
    end
  end)
end)

describe("text.nginx #unit", function()
  it("leaves words bare and quotes the rest", function()
    for value, want in pairs {
      ["example.com"] = "example.com", ["*.example.com"] = "*.example.com", ["a b"] = '"a b"', ["a;b"] = '"a;b"',
      ["a{b}"] = '"a{b}"', ['say "x"'] = [["say \"x\""]], ["a\\b"] = [["a\\b"]], ["#x"] = '"#x"', [""] = '""',
      ["it's"] = [["it's"]],
    } do
      assert.equal(want, (text.nginx(value)))
    end
  end)

  it("refuses the dollar, which has no escape there", function()
    for _, value in ipairs { "$host", "a$", "a\0b" } do
      assert.is_nil((text.nginx(value)))
    end
  end)
end)

describe("text.url #unit", function()
  it("encodes all but the unreserved characters of RFC 3986", function()
    assert.equal("AZaz09-._~", (text.url "AZaz09-._~"))
    assert.equal("%20%2F%2B%3D%24%27%22%25%23%3A%40%26%3F%C3%A9%00", (text.url " /+=$'\"%#:@&?\u{e9}\0"))
    assert.equal("80", (text.url(80)))
  end)
end)

describe("text.lower, upper, raw, join, indent #unit", function()
  it("change ASCII letters only", function()
    assert.equal("abc\u{c9}1", (text.lower "ABC\u{c9}1"))
    assert.equal("ABC\u{e9}1", (text.upper "abc\u{e9}1"))
  end)

  it("leave text as it is", function()
    assert.equal(" a'\"$\n", (text.raw " a'\"$\n"))
    assert.equal("1.0", (text.raw(1.0)))
  end)

  it("join the items of a list", function()
    assert.equal("a, 2, true", (text.join({ "a", 2, true }, ", ")))
    assert.equal("", (text.join({}, ",")))
    assert.is_nil((text.join({ a = 1 }, ",")))
    assert.is_nil((text.join({ {} }, ",")))
    assert.is_nil((text.join("a", ",")))
  end)

  it("indent all lines but the first and the empty ones", function()
    assert.equal("a\n  b\n\n  c\n", (text.indent("a\nb\n\nc\n", 2)))
    assert.is_nil((text.indent({}, 2)))
  end)
end)

describe("text.keys and nearest #unit", function()
  it("sort the keys of a map by their bytes", function()
    assert.same({ "B", "a", "a1", "b" }, text.keys { b = 1, a = 1, B = 1, a1 = 1 })
    assert.same({}, text.keys {})
  end)

  it("find the key that was meant", function()
    local map = { domain = 1, port = 1, tenant = 1, [1] = 1 }
    for name, want in pairs { domian = "domain", prt = "port", tenants = "tenant", Port = "port" } do
      assert.equal(want, text.nearest(name, map))
    end
    assert.is_nil(text.nearest("something", map))
    assert.is_nil(text.nearest("x", {}))
    assert.is_nil(text.nearest(("x"):rep(1000), map))
  end)
end)

describe("text and secrets #unit", function()
  local secret = host.secret("smtp.password", "pass 'word'")

  it("gives a secret of the same name back", function()
    for _, filter in ipairs { "sh", "env", "json", "yaml", "compose", "nginx", "url", "raw", "lower", "upper" } do
      local out = text[filter](secret)
      assert.equal("[secret smtp.password]", tostring(out), filter)
      assert.equal((text[filter]("pass 'word'")), host.reveal(out))
    end
    assert.equal("a pass 'word'", host.reveal((text.join({ "a", secret }, " "))))
    assert.equal('{"a": ["pass \'word\'"]}', host.reveal((text.yaml { a = { secret } })))
  end)
end)

describe("text and misuse #unit", function()
  it("raises without a value or with a wrong argument", function()
    for _, filter in ipairs { "sh", "env", "json", "yaml", "compose", "nginx", "url", "raw", "lower", "upper" } do
      assert.has_error(function() text[filter]() end)
    end
    assert.has_error(function() text.join({}) end)
    assert.has_error(function() text.indent("a") end)
    assert.has_error(function() text.indent("a", -1) end)
    assert.has_error(function() text.indent("a", 1000) end)
    assert.has_error(function() text.keys(1) end)
    assert.has_error(function() text.keys { 1 } end)
    assert.has_error(function() text.nearest(1, {}) end)
    assert.has_error(function() text.nearest("a", 1) end)
  end)
end)
