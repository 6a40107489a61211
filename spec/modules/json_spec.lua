-- json_spec.lua: what a round trip keeps, and what is refused rather than changed.
local host = require "host"
local json = require "json"

local function decode_error(text)
  local value, err = json.decode(text)
  assert.is_nil(value)
  return err
end

local function encode_error(value, opts)
  local ok, message = pcall(json.encode, value, opts)
  assert.is_false(ok)
  return tostring(message)
end

describe("json.decode #unit", function()
  it("reads every kind of value", function()
    local v = json.decode ' {"a": [1, 2.5, -3, 1e2, "x", true, false, null], "b": {"c": ""}} '
    assert.equal(1, v.a[1])
    assert.equal(2.5, v.a[2])
    assert.equal(-3, v.a[3])
    assert.equal(100.0, v.a[4])
    assert.equal("x", v.a[5])
    assert.is_true(v.a[6])
    assert.is_false(v.a[7])
    assert.equal(json.null, v.a[8])
    assert.equal("", v.b.c)
  end)

  it("reads a value that is no container", function()
    assert.equal(7, json.decode "7")
    assert.equal("a", json.decode '"a"')
    assert.equal(json.null, json.decode "null")
    assert.is_false(json.decode "false")
  end)

  it("keeps an integer an integer and a float a float", function()
    local v = json.decode "[1, 1.0, 1e0, -0]"
    assert.equal("integer", math.type(v[1]))
    assert.equal("float", math.type(v[2]))
    assert.equal("float", math.type(v[3]))
    assert.equal("integer", math.type(v[4]))
  end)

  it("keeps 2^53 exact and refuses what lies beyond", function()
    assert.equal(9007199254740992, json.decode "9007199254740992")
    assert.equal(-9007199254740992, json.decode "-9007199254740992")
    for _, text in ipairs { "9007199254740993", "-9007199254740993", "9223372036854775808",
      "123456789012345678901234567890" } do
      local err = decode_error(text)
      assert.equal("range", err.code)
      assert.matches("2^53", err.message, 1, true)
    end
  end)

  it("refuses a number that no float holds, or that is too long", function()
    assert.equal("range", decode_error("[1e400]").code)
    assert.equal("range", decode_error("0." .. ("1"):rep(80)).code)
  end)

  it("finds the right literal after numbers and quotes in strings and keys", function()
    local v = json.decode [==[{"5": "-1 \" 2", "k\"-7": -8, "\\": 9, "l": ["3\\", 4]}]==]
    assert.equal('-1 " 2', v["5"])
    assert.equal(-8, v['k"-7'])
    assert.equal(9, v["\\"])
    assert.equal("3\\", v.l[1])
    assert.equal(4, v.l[2])
  end)

  it("decodes escapes and surrogate pairs", function()
    assert.equal('\b\f\n\r\t"\\/', json.decode [["\b\f\n\r\t\"\\\/"]])
    assert.equal("\u{1F600}\u{e9}", json.decode [["\ud83d\ude00\u00e9"]])
  end)

  it("skips a byte order mark", function()
    assert.equal(1, json.decode("\xef\xbb\xbf[1]")[1])
  end)

  it("names line and column of what is wrong", function()
    local err = decode_error '{\n  "a": 1,\n  "\u{e9}\u{e9}": tru\n}'
    assert.equal("syntax", err.code)
    assert.equal("json", err.module)
    assert.equal(3, err.line)
    assert.equal(9, err.column)
    assert.matches("line 3, column 9", tostring(err), 1, true)
  end)

  it("refuses a key that stands twice, where it stands the second time", function()
    local err = decode_error '{"a": [{"b": 1, "c": "b"},\n {"d": 2, "d": 3}]}'
    assert.equal("syntax", err.code)
    assert.matches('"d" stands twice', err.message, 1, true)
    assert.equal(2, err.line)
    assert.equal(11, err.column)
  end)

  it("refuses what is not JSON", function()
    for _, text in ipairs {
      "", " ", "{", "[", "]", "[1,2", "[1,2]x", "[1 2]", "[1,]", '{"a":1,}', "{a:1}", "{'a':1}",
      '{"a" 1}', '{"a"}', "[01]", "[1.]", "[.5]", "[-]", "[+1]", "[1e]", "[0x10]", "[1-2]", "[1.2.3]",
      "[NaN]", "[Infinity]", "[tru]", "nul", "nulll", "True", '"abc', '"abc\\', '"\\x"', '"\\u12"',
      "\f[]", "[1]//c", "[1]/*c*/", "\u{a0}1",
    } do
      local err = decode_error(text)
      assert.equal("syntax", err.code, text)
    end
  end)

  it("refuses bytes that are no UTF-8, control characters and NUL", function()
    for _, text in ipairs {
      '"\xff"', '"\xc0\x80"', '"\xed\xa0\x80"', '"\xf4\x90\x80\x80"', '"\xe2\x82"', '"\xe2\x82',
      '"\\ud800"', '"\\udc00x"', '"\t"', '"\n"', '"a\0b"', "[1]\0", "\0",
    } do
      assert.equal("syntax", decode_error(text).code)
    end
    assert.matches("u0000", decode_error([["a\u0000b"]]).message, 1, true)
    assert.matches("UTF-8", decode_error('"\xff"').message, 1, true)
  end)

  it("does not take a backslash before u0000 for a NUL", function()
    assert.equal("\\u0000", json.decode [["\\u0000"]])
  end)

  it("reads a hundred levels and refuses more", function()
    assert.is_table(json.decode(("["):rep(100) .. ("]"):rep(100)))
    assert.matches("deep", decode_error(("["):rep(101) .. ("]"):rep(101)).message)
    assert.matches("deep", decode_error(("["):rep(100000)).message)
  end)

  it("raises for what is no string", function()
    for _, value in ipairs { 1, true, {}, print, json.null, host.secret("pw", "12345678") } do
      assert.has_error(function() json.decode(value) end)
    end
    assert.has_error(function() json.decode() end)
  end)
end)

describe("json.encode #unit", function()
  it("writes sorted keys, so that the same value is the same text", function()
    assert.equal('{"B":3,"a":1,"b":2,"c":{"x":1,"y":2}}',
      json.encode { c = { y = 2, x = 1 }, b = 2, B = 3, a = 1 })
  end)

  it("may leave keys unsorted", function()
    local v = { a = 1, b = 2, c = 3 }
    assert.same(v, json.decode(json.encode(v, { sort = false })))
  end)

  it("lays out two spaces a level when asked", function()
    local text = json.encode({ a = { 1, {}, json.array() }, b = { c = 'x"[,:{' } }, { pretty = true })
    assert.equal('{\n  "a": [\n    1,\n    {},\n    []\n  ],\n  "b": {\n    "c": "x\\"[,:{"\n  }\n}', text)
    assert.equal("[]", json.encode(json.array(), { pretty = true }))
    assert.equal('"a"', json.encode("a", { pretty = true }))
  end)

  it("keeps a list a list, an empty list too", function()
    for _, text in ipairs { "[]", "{}", "[[],{}]", '{"a":[],"b":{}}', "[null]", "[1.0,1]", '""' } do
      assert.equal(text, json.encode(json.decode(text)))
    end
    assert.equal("[]", json.encode(json.array {}))
    assert.equal("[1]", json.encode(json.array { 1 }))
    assert.equal("{}", json.encode {})
  end)

  it("writes the shortest number that reads back as the same", function()
    assert.equal("[0.1,1.0,-0.0,1e+300,3.141592653589793,9007199254740992]",
      json.encode { 0.1, 1.0, -0.0, 1e300, math.pi, 1 << 53 })
    for _, n in ipairs { 1 / 3, 5e-324, 1.7976931348623157e308, 123456789.125, -2.5e-10 } do
      assert.equal(n, json.decode(json.encode(n)))
    end
  end)

  it("escapes what must be escaped and nothing else", function()
    assert.equal([["\"\\\b\f\n\r\t\u0001/]] .. '\u{7f}\u{e9}\u{1F600}"',
      json.encode '"\\\b\f\n\r\t\1/\u{7f}\u{e9}\u{1F600}')
  end)

  it("raises for what JSON cannot hold, naming the place", function()
    local self = {}
    self.x = { self }
    local deep = {}
    local at = deep
    for _ = 1, 101 do
      at.a = {}
      at = at.a
    end
    for _, case in ipairs {
      { print, "function" },
      { { a = { b = { 1, print } } }, "a.b[2]: a function" },
      { { 0 / 0 }, "[1]: not a number" },
      { { 1 / 0 }, "infinite" },
      { { -1 / 0 }, "infinite" },
      { { n = (1 << 53) + 1 }, "n: an integer beyond 2^53" },
      { math.mininteger, "2^53" },
      { { 1, 2, a = 3 }, "list and map" },
      { { [1] = 1, [3] = 3 }, "holes" },
      { { [0] = 1 }, "key" },
      { { [1.5] = 1 }, "key" },
      { { [true] = 1 }, "key" },
      { self, "x[1]: a table that contains itself" },
      { deep, "deep" },
      { { ["a\0b"] = 1 }, "NUL" },
      { { a = "x\0" }, "a: a NUL" },
      { { "\xff" }, "UTF-8" },
      { { ["\xff"] = 1 }, "UTF-8" },
      { coroutine.create(print), "thread" },
      { io.stdout, "userdata" },
      { setmetatable({}, { __index = { a = 1 } }), "__index" },
      { setmetatable({}, { __pairs = next }), "__pairs" },
    } do
      assert.matches(case[2], encode_error(case[1]), 1, true)
    end
    assert.matches("nil", encode_error(nil))
    assert.has_error(function() json.encode() end)
  end)

  it("never writes a secret", function()
    local message = encode_error { token = host.secret("hub.token", "canary-value") }
    assert.matches("token: a secret", message, 1, true)
    assert.is_nil(message:find("canary", 1, true))
  end)

  it("takes the same table twice when it is no cycle", function()
    local shared = { 1 }
    assert.equal("[[1],[1]]", json.encode { shared, shared })
  end)

  it("raises for an option it does not know, or of a wrong type", function()
    assert.matches("indent", encode_error({}, { indent = 2 }))
    assert.matches("pretty", encode_error({}, { pretty = 1 }))
    assert.has_error(function() json.encode({}, "pretty") end)
  end)
end)

describe("json.null and json.array #unit", function()
  it("null is one value that prints as null", function()
    assert.equal(json.null, json.decode("[null]")[1])
    assert.equal("null", tostring(json.null))
    assert.equal("[null]", json.encode { json.null })
  end)

  it("tells a marked array", function()
    assert.is_true(json.is_array(json.decode "[]"))
    assert.is_true(json.is_array(json.array { 1 }))
    assert.is_false(json.is_array { 1 })
    assert.is_false(json.is_array(json.decode "{}"))
    assert.is_false(json.is_array("x"))
    assert.is_false(json.is_array(nil))
  end)

  it("refuses to mark what is no plain list", function()
    assert.matches("named key", encode_error(json.array { a = 1 }))
    assert.has_error(function() json.array(1) end)
    assert.has_error(function() json.array(nil) end)
    assert.has_error(function() json.array(setmetatable({}, {})) end)
  end)

  it("cannot be tampered with from a script", function()
    assert.is_false(getmetatable(json.null))
    assert.is_false(getmetatable(json.array()))
  end)
end)

describe("json under memory pressure #unit", function()
  it("frees what it built when it raises midway", function()
    local big = {}
    for i = 1, 2000 do
      big[i] = { name = ("x"):rep(100), n = i }
    end
    big[2001] = print
    for _ = 1, 20 do
      assert.is_false(pcall(json.encode, big))
      assert.is_nil((json.decode("[" .. ('{"a":1},'):rep(2000) .. '{"a":1,"a":2}]')))
    end
  end)
end)
