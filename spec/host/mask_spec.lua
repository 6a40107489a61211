-- mask_spec.lua: The masker, by whole texts (host.mask) and by streams (host.mask_stream).

local host = require "host"

local function base64(s, alphabet62)
  local chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" ..
    (alphabet62 or "+/")
  local out = {}
  for i = 1, #s, 3 do
    local a, b, c = s:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    for k = 3, 0, -1 do
      local v = n >> (6 * k) & 63
      out[#out + 1] = chars:sub(v + 1, v + 1)
    end
    if not b then out[#out - 1] = "=" end
    if not c then out[#out] = "=" end
  end
  return table.concat(out)
end

local function hex(s, upper)
  return (s:gsub(".", function(c) return (upper and "%02X" or "%02x"):format(c:byte()) end))
end

local function url(s, kept, upper)
  return (s:gsub("[^%w" .. kept .. "]", function(c)
    return (upper and "%%%02X" or "%%%02x"):format(c:byte())
  end))
end

local function shell(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

local function stream_all(pieces, idle)
  local s = host.mask_stream()
  local out = {}
  for _, p in ipairs(pieces) do
    out[#out + 1] = s:feed(p)
    if idle and idle() then out[#out + 1] = s:idle() end
  end
  out[#out + 1] = s:flush()
  return table.concat(out)
end

local function random_pieces(text, longest)
  local pieces, at = {}, 1
  while at <= #text do
    local n = math.random(1, longest)
    pieces[#pieces + 1] = text:sub(at, at + n - 1)
    at = at + n
  end
  return pieces
end

-- All places where a secret stands, merged where they overlap: the masker's contract for
-- the raw form, written the plain way.
local function reference(text, secrets)
  local found = {}
  for name, value in pairs(secrets) do
    local at = 1
    while true do
      local from, to = text:find(value, at, true)
      if not from then break end
      found[#found + 1] = { from, to, name }
      at = from + 1
    end
  end
  table.sort(found, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] > b[2]
  end)
  local out, at, i = {}, 1, 1
  while found[i] do
    local from, to, name = found[i][1], found[i][2], found[i][3]
    while found[i] and found[i][1] <= to do
      to = math.max(to, found[i][2])
      i = i + 1
    end
    out[#out + 1] = text:sub(at, from - 1) .. "[secret " .. name .. "]"
    at = to + 1
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out)
end

describe("masker #unit", function()
  local value = "p4ss/w%rd+'\"&<\\é"

  it("replaces a secret and nothing else", function()
    local _ <close> = host.secret("db.password", "hunter2-hunter2")
    assert.equal("a=[secret db.password];b", host.mask("a=hunter2-hunter2;b"))
    assert.equal("hunter2", host.mask("hunter2"))
    assert.equal("", host.mask(""))
    assert.equal("\0\255", host.mask("\0\255"))
  end)

  it("knows the hex form in both cases", function()
    local _ <close> = host.secret("x", value)
    assert.equal("<[secret x]>", host.mask("<" .. hex(value) .. ">"))
    assert.equal("<[secret x]>", host.mask("<" .. hex(value, true) .. ">"))
  end)

  it("knows the base64 form in every alignment and both alphabets", function()
    for _, v in ipairs { value, "8 bytes!", "\255\254\253\252\251\250\249\248\247" } do
      local _ <close> = host.secret("x", v)
      for before = 0, 5 do
        for after = 0, 5 do
          for _, alphabet in ipairs { "+/", "-_" } do
            local text = ("<"):rep(before) .. v .. (">"):rep(after)
            local masked, n = host.mask(base64(text, alphabet)):gsub("%[secret x%]", "")
            assert.equal(1, n)
            -- one character on each side is shared with the neighbours
            assert.is_true(#masked <= (before + after) * 4 / 3 + 6, masked)
          end
        end
      end
    end
  end)

  it("knows base64 and hex that are broken into lines", function()
    local long = ("S3cret-%d/"):rep(20):format(table.unpack((function()
      local t = {}
      for i = 1, 20 do t[i] = i * 7919 end
      return t
    end)()))
    local _ <close> = host.secret("long", long)
    for _, form in ipairs { base64(long), base64("ab" .. long .. "c"), hex(long), hex(long, true) } do
      for _, width in ipairs { 1, 2, 60, 64, 76 } do
        for _, eol in ipairs { "\n", "\r\n" } do
          local text = form:gsub(("."):rep(width), "%0" .. eol)
          local masked, n = host.mask("x: " .. text .. "\n\nend"):gsub("%[secret long%]", "")
          assert.equal(1, n)
          assert.is_true(#masked:gsub("[\r\n]", "") <= 12, masked)
        end
      end
    end
    assert.equal(base64(long):sub(1, 7) .. "\n\n\n" .. base64(long):sub(8),
      host.mask(base64(long):sub(1, 7) .. "\n\n\n" .. base64(long):sub(8)))
  end)

  it("knows the URL form however strictly it is encoded", function()
    local v = "p4ss/w%rd+'\"&<\\é (x)"
    local _ <close> = host.secret("x", v)
    for _, kept in ipairs { "-_.~", "-_.~/", "-_.!~*'()" } do
      for _, upper in ipairs { true, false } do
        assert.equal("u:[secret x]@", host.mask("u:" .. url(v, kept:gsub("%p", "%%%0"), upper) .. "@"))
      end
    end
    assert.equal("a=[secret x]&", host.mask("a=" .. url(v, " ", true):gsub(" ", "+") .. "&"))
  end)

  it("knows the JSON form", function()
    local v = "a\"b\\c/d\te\nf<&>\1é€😀"
    local _ <close> = host.secret("x", v)
    local plain = 'a\\"b\\\\c/d\\te\\nf<&>\\u0001é€😀'
    local forms = {
      plain,
      (plain:gsub("/", "\\/")),
      (plain:gsub("<&>", "\\u003c\\u0026\\u003e")),
      (plain:gsub("é€😀", "\\u00e9\\u20ac\\ud83d\\ude00")),
    }
    for _, form in ipairs(forms) do
      assert.equal('{"k":"[secret x]"}', host.mask('{"k":"' .. form .. '"}'))
    end
  end)

  it("knows the shell form", function()
    local v = "it's a $ecret`\"\\!"
    local _ <close> = host.secret("x", v)
    assert.equal("echo '[secret x]'", host.mask("echo " .. shell(v)))
    assert.equal("echo '[secret x]'", host.mask("echo '" .. v:gsub("'", "'\"'\"'") .. "'"))
    assert.equal('echo "[secret x]"', host.mask('echo "it\'s a \\$ecret\\`\\"\\\\!"'))
    assert.equal("echo [secret x]", host.mask("echo it\\'s\\ a\\ \\$ecret\\`\\\"\\\\\\!"))
  end)

  it("knows the forms of compose files, YAML, SQL and of single quotes", function()
    local v = "it's \"5$ or 6$\" \\o/"
    local _ <close> = host.secret("x", v)
    local function form(with) return (v:gsub("[%p]", with)) end
    local double = { ["$"] = "$$", ["'"] = "''", ['"'] = '""', ["\\"] = "\\\\" }
    local slash = { ["$"] = "\\$", ["'"] = "\\'", ['"'] = '\\"', ["\\"] = "\\\\" }
    for what, with in pairs {
      compose = { ["$"] = "$$" }, yaml = { ["'"] = "''" }, ["compose in single quotes"] = { ["$"] = "$$", ["'"] = "''" },
      ["compose in double quotes"] = { ["$"] = "$$", ['"'] = slash['"'], ["\\"] = slash["\\"] },
      ["compose in a shell's quotes"] = { ["$"] = "$$", ["'"] = "'\\''" }, csv = { ['"'] = '""' },
      ["one quote"] = { ["'"] = slash["'"] }, php = { ["'"] = slash["'"], ["\\"] = slash["\\"] },
      mysql = { ["'"] = slash["'"], ['"'] = slash['"'], ["\\"] = slash["\\"] },
      ["doubled and escaped"] = { ["'"] = double["'"], ["\\"] = slash["\\"] }, all = slash,
    } do
      local text = form(with)
      assert.is_true(text ~= v, what)
      assert.equal("<[secret x]>", host.mask("<" .. text .. ">"), what)
      assert.equal("<[secret x]>", stream_all({ "<" .. text:sub(1, 4), text:sub(5) .. ">" }), what)
    end
  end)

  it("masks what the template filters make of a secret", function()
    local v, quotes, dollar = "pa$$'wo\"rd$\\'x", "pa'wo\"rd\\'x", "pa$'wo\"rd$x"
    local _ <close> = host.secret("x", v)
    local _ <close> = host.secret("x", quotes)
    local _ <close> = host.secret("x", dollar)
    for filter, list in pairs { raw = { v, quotes, dollar }, url = { v, quotes, dollar }, sh = { v, quotes, dollar },
        json = { v, quotes, dollar }, yaml = { v, quotes, dollar }, compose = { v, quotes, dollar }, env = { quotes, dollar },
        nginx = { quotes } } do
      for _, text in ipairs(list) do
        local made = assert(require "template".render((filter == "env" and "a=" or "a: ") .. "{{ v | " .. filter .. " }}\n", { v = text }, { name = "t" }))
        assert.matches("^a[:=] ?['\"]?%[secret x%]['\"]?\n$", host.mask(made), filter)
      end
    end
  end)

  it("knows a secret of many lines line by line, but not its short lines", function()
    local _ <close> = host.secret("key", "first line 1\nshort\r\nsecond line 2\n")
    assert.equal("[secret key]\nshort\n[secret key]", host.mask("first line 1\nshort\nsecond line 2"))
    assert.equal("> [secret key]\r\n", host.mask("> first line 1\r\n"))
    assert.equal("[secret key]", host.mask("first line 1\nshort\r\nsecond line 2\n"))
    assert.equal("[secret key]", host.mask(hex "second line 2"))
    assert.equal("'[secret key]'", host.mask("'first line 1\\nshort\\r\\nsecond line 2\\n'"))
  end)

  it("does not take the first and last line of a PEM file for a secret", function()
    local pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIH\n-----END PRIVATE KEY-----\n"
    local _ <close> = host.secret("pem", pem)
    assert.equal("[secret pem]", host.mask(pem))
    assert.equal("no -----BEGIN PRIVATE KEY----- here", host.mask("no -----BEGIN PRIVATE KEY----- here"))
    assert.equal("x [secret pem] y", host.mask("x MC4CAQAwBQYDK2VwBCIEIH y"))
  end)

  it("names the leftmost and then the longest of secrets that overlap", function()
    local _ <close> = host.secret("short", "abcdefgh")
    local _ <close> = host.secret("long", "abcdefgh-ijkl")
    local _ <close> = host.secret("tail", "fgh-ijklmnop")
    local _ <close> = host.secret("inner", "defgh-ij")
    assert.equal("1[secret short]2", host.mask("1abcdefgh2"))
    assert.equal("1[secret short]-i2", host.mask("1abcdefgh-i2"))
    assert.equal("1[secret long]2", host.mask("1abcdefgh-ijkl2"))
    assert.equal("1[secret long]2", host.mask("1abcdefgh-ijklmnop2"))
    assert.equal("1[secret inner]2", host.mask("1defgh-ijklmnop2"))
    assert.equal("1[secret short][secret tail]2", host.mask("1abcdefghfgh-ijklmnop2"))
  end)

  it("masks the same bytes until the last secret that has them is gone", function()
    local a = host.secret("one", "same-same-same")
    local b = host.secret("two", "same-same-same")
    assert.equal("[secret one]", host.mask("same-same-same"))
    local function release(s) local _ <close> = s end
    release(a)
    assert.equal("[secret two]", host.mask("same-same-same"))
    release(b)
    assert.equal("same-same-same", host.mask("same-same-same"))
  end)

  it("knows two thousand secrets at once", function()
    local list = {}
    for i = 1, 2000 do list[i] = host.secret("n" .. i, ("value-%d-%d"):format(i, i * 7919)) end
    local text = {}
    for i = 1, 2000, 7 do text[#text + 1] = ("(value-%d-%d)"):format(i, i * 7919) end
    local expected = {}
    for i = 1, 2000, 7 do expected[#expected + 1] = ("([secret n%d])"):format(i) end
    assert.equal(table.concat(expected), host.mask(table.concat(text)))
    for _, s in ipairs(list) do local _ <close> = s end
  end)

  it("refuses what is no string", function()
    local s = host.mask_stream()
    local secret <close> = host.secret("x", "12345678")
    for _, wrong in ipairs { 1, true, {}, print, s, secret, io.stdout, coroutine.create(print) } do
      assert.has_error(function() host.mask(wrong) end)
      assert.has_error(function() s:feed(wrong) end)
      assert.has_error(function() s.feed(wrong == s and 1 or wrong, "x") end)
      assert.has_error(function() s.idle(wrong == s and 1 or wrong) end)
      assert.has_error(function() s.flush(wrong == s and 1 or wrong) end)
    end
    assert.has_error(function() host.mask() end)
    assert.has_error(function() s:feed() end)
    assert.has_error(function() s.flush() end)
  end)
end)

describe("masked stream #unit", function()
  it("masks a secret that is split at any one point, or any two", function()
    local v = "s3cr3t/'\"v"
    local _ <close> = host.secret("x", v)
    for _, form in ipairs { v, hex(v), hex(v, true), base64(v), base64("a" .. v), url(v, "", true),
        's3cr3t/\'\\"v' } do
      local text = "ab " .. form .. " cd"
      local whole = host.mask(text)
      assert.truthy(whole:find("[secret x]", 1, true))
      for i = 0, #text do
        assert.equal(whole, stream_all { text:sub(1, i), text:sub(i + 1) })
        for j = i, #text do
          assert.equal(whole, stream_all { text:sub(1, i), text:sub(i + 1, j), text:sub(j + 1) })
        end
      end
      local bytes = {}
      for i = 1, #text do bytes[i] = text:sub(i, i) end
      assert.equal(whole, stream_all(bytes))
    end
  end)

  it("gives the same for every way to cut a text", function()
    math.randomseed(20240229)
    for _ = 1, 300 do
      local secrets, held = {}, {}
      local alphabet = ({ "ab", "abc", "ab\n" })[math.random(3)]
      local function word(n)
        local t = {}
        for i = 1, n do
          local k = math.random(#alphabet)
          t[i] = alphabet:sub(k, k)
        end
        return table.concat(t)
      end
      for i = 1, math.random(4) do
        local v = word(math.random(8, 14)):gsub("\n", "c")
        secrets["n" .. i .. "-" .. v] = v
        held[i] = host.secret("n" .. i .. "-" .. v, v)
      end
      -- of secrets with the same bytes the first one names the place
      local seen = {}
      for i = 1, #held do
        local name = held[i]:name()
        local v = secrets[name]
        if seen[v] then secrets[name] = nil end
        seen[v] = true
      end
      local text = {}
      for i = 1, 30 do
        text[i] = math.random(3) == 1 and (select(2, next(secrets))) or word(math.random(12))
      end
      text = table.concat(text) .. "."
      local expected = reference(text, secrets)
      assert.equal(expected, host.mask(text))
      for _, longest in ipairs { 1, 3, 20 } do
        assert.equal(expected, stream_all(random_pieces(text, longest)))
      end
      for _, s in ipairs(held) do local _ <close> = s end
    end
  end)

  it("holds back only what may become a secret", function()
    local _ <close> = host.secret("x", "ABCDEFGHIJ")
    local s = host.mask_stream()
    assert.equal("some text ", s:feed("some text "))
    assert.equal("more ", s:feed("more ABCD"))
    assert.equal("ABCD", s:feed("ABC"))
    assert.equal("ABCx", s:feed("x"))
    assert.equal("", s:feed("ABCDEFGHI"))
    assert.equal("[secret x]", s:feed("J"))
    assert.equal("done\n", s:feed("done\n"))
    assert.equal("", s:flush())
  end)

  it("lets go of fewer than four bytes when idle, and masks the rest all the same", function()
    local _ <close> = host.secret("x", "ABCDEFGHIJ")
    local s = host.mask_stream()
    assert.equal("", s:feed("ABC"))
    assert.equal("ABC", s:idle())
    assert.equal("", s:idle())
    assert.equal("", s:feed("DEF"))
    assert.equal("", s:idle())
    assert.equal("[secret x]", s:feed("GHIJ"))
    assert.equal("", s:feed("ABCD"))
    assert.equal("", s:idle())
    assert.equal("ABCDE!", s:feed("E!"))
    assert.equal("", s:feed("ABC"))
    assert.equal("ABC", s:idle())
    assert.equal("no ", s:feed("no AB"))
    assert.equal("AB", s:flush())
    assert.equal("CDEFGHIJ", s:feed("CDEFGHIJ"))
  end)

  it("shows a secret that is complete when idle, once, though it could go on", function()
    local _ <close> = host.secret("x", "ABCDEFGH")
    local _ <close> = host.secret("y", "ABCDEFGH and more")
    local s = host.mask_stream()
    assert.equal("", s:feed("ABCDEFGH"))
    assert.equal("[secret x]", s:idle())
    assert.equal("", s:idle())
    assert.equal("", s:feed(" and"))
    assert.equal("", s:idle())
    assert.equal("!", s:feed(" more!"))
    assert.equal("", s:feed("ABCDEFGH"))
    assert.equal("[secret x]", s:idle())
    assert.equal(" and less", s:feed(" and less"))
  end)

  it("never shows a secret, whatever the pieces and idle moments", function()
    math.randomseed(7)
    local v = "abcabcabd"
    local _ <close> = host.secret("x", v)
    for _ = 1, 500 do
      local text = {}
      for i = 1, 20 do text[i] = ({ "a", "b", "c", "abc", v, "abcab", "\n" })[math.random(7)] end
      text = table.concat(text)
      local out = stream_all(random_pieces(text, 6), function() return math.random(2) == 1 end)
      -- up to three bytes of it can come out, never more
      local shown = out:gsub("%[secret x%]", "|")
      assert.is_nil(shown:find(v, 1, true), shown)
      local _, n = text:gsub(v, "")
      local _, m = out:gsub("%[secret x%]", "")
      assert.is_true(m >= (n > 0 and 1 or 0), out)
      assert.is_nil(shown:find("cabcabd", 1, true), shown)
    end
  end)

  it("masks the greater part of a secret that is cut off at the end", function()
    local _ <close> = host.secret("x", "ABCDEFGHIJKL")
    assert.equal("a [secret x]", host.mask("a ABCDEFGHIJK"))
    assert.equal("a [secret x]", host.mask("a ABCDEFGH"))
    assert.equal("a ABCDEFG", host.mask("a ABCDEFG"))
    assert.equal("a ABCDEFGH.", host.mask("a ABCDEFGH."))
  end)

  it("masks a secret that is known only when part of it is held back", function()
    local _ <close> = host.secret("a", "ABCDEFGHIJ")
    local s = host.mask_stream()
    assert.equal("", s:feed("ABCDE"))
    local _ <close> = host.secret("b", "CDE12345")
    assert.equal("AB", s:feed("1"))
    assert.equal("[secret b]", s:feed("2345"))
    assert.equal("[secret a].", s:feed("ABCDEFGHIJ."))
  end)

  it("goes on when secrets come and go in mid-stream", function()
    local s = host.mask_stream()
    for i = 1, 50 do
      local v = ("secret number %d."):format(i)
      do
        local _ <close> = host.secret("x", v)
        assert.equal("a ", s:feed("a " .. v:sub(1, 9)))
        assert.equal("[secret x]b", s:feed(v:sub(10) .. "b"))
      end
      assert.equal(v .. " ", s:feed(v .. " "))
    end
  end)

  it("begins anew after a flush", function()
    local _ <close> = host.secret("x", "ABCDEFGHIJ")
    local s = host.mask_stream()
    assert.equal("", s:feed("ABCDE"))
    assert.equal("ABCDE", s:flush())
    assert.equal("FGHIJ", s:feed("FGHIJ"))
    assert.equal("[secret x]", s:feed("ABCDEFGHIJ"))
  end)

  it("needs no memory for a text that never stops to match", function()
    local _ <close> = host.secret("x", "abababab")
    local s = host.mask_stream()
    local out = {}
    for _ = 1, 2000 do out[#out + 1] = s:feed(("ab"):rep(500)) end
    out[#out + 1] = s:flush()
    assert.equal("[secret x]", table.concat(out))
  end)
end)
