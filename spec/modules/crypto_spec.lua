-- crypto_spec.lua: random values, digests, base64 and password hashes, by the RFCs' vectors.
local crypto = require "crypto"
local host = require "host"
local shell = require "support.shell"

local bytes = shell.bytes

local function failed(code, ...)
  local value, err = ...
  assert.is_nil(value)
  assert.equal(code, err.code)
  assert.equal("crypto", err.module)
  return err
end

describe("crypto random values #unit", function()
  it("differ each time", function()
    assert.equal(32, #crypto.random_bytes(32))
    assert.equal(1048576, #crypto.random_bytes(1048576))
    assert.not_equal(crypto.random_bytes(32), crypto.random_bytes(32))
    assert.matches("^%x+$", crypto.token(16))
    assert.equal(32, #crypto.token(16))
    assert.not_equal(crypto.token(16), crypto.token(16))
  end)

  it("have a size within bounds", function()
    for _, n in ipairs { 0, -1, 1048577, 1.5, "x", {} } do
      assert.has_error(function() crypto.random_bytes(n) end)
    end
    for _, n in ipairs { 0, 257, "x" } do
      assert.has_error(function() crypto.token(n) end)
    end
  end)

  it("become passwords that are secrets", function()
    local forms = {
      [{ name = "a" }] = { 44, "^[%w+/]+=$" },
      [{ name = "a", encoding = "base64", bytes = 48 }] = { 64, "^[%w+/]+$" },
      [{ name = "a", encoding = "base64url", bytes = 32 }] = { 43, "^[%w_-]+$" },
      [{ name = "a", encoding = "hex", bytes = 32 }] = { 64, "^%x+$" },
      [{ name = "a", encoding = "alnum", length = 24 }] = { 24, "^%w+$" },
      [{ name = "a", alphabet = "0123456789", length = 40 }] = { 40, "^%d+$" },
    }
    for opts, want in pairs(forms) do
      local one, two = crypto.password(opts), crypto.password(opts)
      assert.equal("[secret a]", tostring(one))
      assert.equal(want[1], #host.reveal(one))
      assert.matches(want[2], host.reveal(one))
      assert.not_equal(host.reveal(one), host.reveal(two))
    end
  end)

  it("use every character of the alphabet about as often as another", function()
    local count, total = {}, 0
    for _ = 1, 100 do
      for c in host.reveal(crypto.password { name = "a", encoding = "alnum", length = 1000 }):gmatch(".") do
        count[c] = (count[c] or 0) + 1
        total = total + 1
      end
    end
    local kinds = 0
    for _, n in pairs(count) do
      kinds = kinds + 1
      assert.is_true(math.abs(n - total / 62) < total / 62 * 0.2)
    end
    assert.equal(62, kinds)
  end)

  it("raise for options that would make them weak or are unknown", function()
    for _, opts in ipairs {
      {}, { name = 1 }, { name = "a", bytes = 15 }, { name = "a", encoding = "alnum", length = 11 },
      { name = "a", encoding = "rot13" }, { name = "a", alphabet = "abc" }, { name = "a", alphabet = "aabcdefghij" },
      { name = "a", alphabet = "abcdefghi j" }, { name = "a", nope = 1 }, { name = "a", bytes = "x" },
      { name = "a", alphabet = "0123456789", encoding = "hex" }, { name = "" },
    } do
      assert.has_error(function() crypto.password(opts) end)
    end
    assert.has_error(function() crypto.password() end)
  end)
end)

describe("crypto.sha256 #unit", function()
  it("is that of RFC 6234", function()
    for text, want in pairs {
      [""] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq =
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      [("a"):rep(1000000)] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
      [("0123456701234567012345670123456701234567012345670123456701234567"):rep(10)] =
        "594847328451bdfa85056225462cc1d867d877fb388df0ce35f25ab5562bfbb5",
    } do
      assert.equal(want, crypto.sha256(text))
    end
    assert.equal(crypto.sha256 "canary-value", crypto.sha256(host.secret("pw", "canary-value")))
  end)

  it("of a file is that of its bytes, and the loop goes on meanwhile", function()
    finally(shell.clean)
    local path = shell.write("big", ("0123456789abcdef"):rep(4 << 16))
    local turns = 0
    local other = host.task(function()
      for _ = 1, 3 do
        host.sleep(0)
        turns = turns + 1
      end
    end)
    local hex, size = crypto.sha256_file(path)
    assert.is_true(other:join(5))
    assert.equal(crypto.sha256(shell.read(path)), hex)
    assert.equal(4 << 20, size)
    assert.equal(3, turns)
    assert.same({ crypto.sha256 "", 0 }, { crypto.sha256_file(shell.write("empty", "")) })
  end)

  it("of what is no file is an error with a code", function()
    finally(shell.clean)
    failed("not_found", crypto.sha256_file(shell.path "nothing"))
    failed("is_directory", crypto.sha256_file "/tmp")
    failed("invalid", crypto.sha256_file "/dev/zero")
    os.execute("mkfifo " .. shell.path "fifo")
    failed("invalid", crypto.sha256_file(shell.path "fifo"))
  end)

  it("of a file stops when its task is cancelled", function()
    finally(shell.clean)
    local path = shell.path "sparse"
    os.execute("truncate -s 20G " .. path)
    local task = host.task(function() return crypto.sha256_file(path) end)
    host.sleep(0.05)
    task:cancel()
    local ok, value, err = task:join(5)
    assert.is_true(ok)
    failed("interrupted", value, err)
  end)

  it("raises for wrong types", function()
    for _, value in ipairs { 1, true, {}, print } do
      assert.has_error(function() crypto.sha256(value) end)
      assert.has_error(function() crypto.sha256_file(value) end)
    end
    assert.has_error(function() crypto.sha256() end)
    assert.has_error(function() crypto.sha256_file "a\0b" end)
  end)
end)

describe("crypto.hmac_sha256 #unit", function()
  it("is that of RFC 4231", function()
    local aa = bytes(("aa"):rep(131))
    for _, case in ipairs {
      { bytes(("0b"):rep(20)), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
      { "Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
      { bytes(("aa"):rep(20)), bytes(("dd"):rep(50)), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe" },
      { bytes "0102030405060708090a0b0c0d0e0f10111213141516171819", bytes(("cd"):rep(50)),
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b" },
      { aa, "Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" },
      { aa, "This is a test using a larger than block-size key and a larger than block-size data. The key needs "
        .. "to be hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2" },
    } do
      assert.equal(case[3], crypto.hmac_sha256(case[1], case[2]))
    end
  end)

  it("takes secrets and raises for other types", function()
    assert.equal(crypto.hmac_sha256("12345678", "m"), crypto.hmac_sha256(host.secret("k", "12345678"), "m"))
    assert.has_error(function() crypto.hmac_sha256("k") end)
    assert.has_error(function() crypto.hmac_sha256(1, "m") end)
  end)
end)

describe("crypto.hkdf_sha256 #unit", function()
  it("is that of RFC 5869", function()
    local function span(from, to)
      local t = {}
      for i = from, to do t[#t + 1] = string.char(i) end
      return table.concat(t)
    end
    local ikm = bytes(("0b"):rep(22))
    for _, case in ipairs {
      { ikm, span(0x00, 0x0c), span(0xf0, 0xf9), 42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865" },
      { span(0x00, 0x4f), span(0x60, 0xaf), span(0xb0, 0xff), 82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
          .. "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87" },
      { ikm, "", "", 42, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8" },
    } do
      assert.equal(case[5], shell.hex(crypto.hkdf_sha256(case[1], case[2], case[3], case[4])))
    end
  end)

  it("has a length within bounds", function()
    assert.equal(8160, #crypto.hkdf_sha256("k", "", "", 8160))
    for _, n in ipairs { 0, 8161, "x" } do
      assert.has_error(function() crypto.hkdf_sha256("k", "", "", n) end)
    end
    assert.has_error(function() crypto.hkdf_sha256("k", "", 1, 32) end)
  end)
end)

describe("crypto.equal #unit", function()
  it("compares strings and secrets", function()
    local secret = host.secret("pw", "canary-value")
    assert.is_true(crypto.equal("a", "a"))
    assert.is_true(crypto.equal("", ""))
    assert.is_false(crypto.equal("a", "b"))
    assert.is_false(crypto.equal("a", "ab"))
    assert.is_true(crypto.equal(secret, "canary-value"))
    assert.is_false(crypto.equal(secret, "canary-valuf"))
    assert.has_error(function() crypto.equal("a", 1) end)
    assert.has_error(function() crypto.equal("a") end)
  end)
end)

describe("crypto.base64 #unit", function()
  it("is that of RFC 4648", function()
    for text, want in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=",
      foobar = "Zm9vYmFy" } do
      assert.equal(want, crypto.base64(text))
      assert.equal(text, crypto.unbase64(want))
      assert.equal((want:gsub("=", "")), crypto.base64(text, { pad = false }))
      assert.equal(text, crypto.unbase64((want:gsub("=", ""))))
    end
    assert.equal("-_8", crypto.base64("\xfb\xff", { url = true }))
    assert.equal("\xfb\xff", crypto.unbase64("-_8", { url = true }))
    local all = crypto.random_bytes(1000)
    assert.equal(all, crypto.unbase64(crypto.base64(all)))
  end)

  it("is strict", function()
    for _, text in ipairs { "Z", "Zg=", "Zg===", "=", "====", "Zh==", "Zm9=", "Zm9v\n", " Zm9v", "Zm9v!", "Z-8=", "Zg==Zg==",
      "Z\0==" } do
      failed("syntax", crypto.unbase64(text))
    end
    failed("syntax", crypto.unbase64("+/8", { url = true }))
  end)

  it("keeps a secret a secret", function()
    local secret = crypto.base64(host.secret("pw", "canary-value"))
    assert.equal("[secret pw]", tostring(secret))
    assert.equal("Y2FuYXJ5LXZhbHVl", host.reveal(secret))
    assert.equal("canary-value", host.reveal(crypto.unbase64(secret)))
  end)

  it("raises for wrong types", function()
    for _, value in ipairs { 1, {}, true } do
      assert.has_error(function() crypto.base64(value) end)
      assert.has_error(function() crypto.unbase64(value) end)
    end
    assert.has_error(function() crypto.base64("a", { nope = 1 }) end)
    assert.has_error(function() crypto.base64("a", { url = 1 }) end)
  end)
end)

describe("crypto.bcrypt #unit", function()
  it("makes a hash that its password verifies and no other", function()
    local secret = host.secret("pw", "pass'word\xc3\xa9")
    local hash = crypto.bcrypt(secret, 4)
    assert.matches("^%$2y%$04%$[%w./]+$", hash)
    assert.equal(60, #hash)
    assert.is_true(crypto.verify(secret, hash))
    assert.is_true(crypto.verify("pass'word\xc3\xa9", hash))
    assert.is_false(crypto.verify("pass'word", hash))
    assert.not_equal(hash, crypto.bcrypt(secret, 4))
    assert.matches("^%$2y%$12%$", (crypto.bcrypt "x"))
  end)

  it("verifies the known hashes of other implementations", function()
    for password, hash in pairs {
      ["U*U"] = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
      ["U*U*"] = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK",
      ["U*U*U"] = "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a",
      [""] = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy",
    } do
      assert.is_true(crypto.verify(password, hash))
      assert.is_false(crypto.verify(password .. "x", hash))
    end
  end)

  it("refuses what bcrypt would cut without a word", function()
    assert.is_string(crypto.bcrypt(("x"):rep(72), 4))
    failed("too_long", crypto.bcrypt(("x"):rep(73), 4))
    failed("too_long", crypto.bcrypt("a\0b", 4))
    assert.is_false(crypto.verify(("x"):rep(73), crypto.bcrypt(("x"):rep(72), 4)))
  end)

  it("lets the loop go on", function()
    local turns = 0
    local other = host.task(function()
      for _ = 1, 5 do
        host.sleep(0.001)
        turns = turns + 1
      end
      return turns
    end)
    local before
    assert.is_string(crypto.bcrypt("x", 10))
    before = turns
    other:join(5)
    assert.is_true(before >= 1)
  end)

  it("raises for wrong types and costs", function()
    for _, cost in ipairs { 3, 17, "x", 4.5 } do
      assert.has_error(function() crypto.bcrypt("x", cost) end)
    end
    assert.has_error(function() crypto.bcrypt(1) end)
    assert.has_error(function() crypto.bcrypt() end)
  end)
end)

describe("crypto.argon2id #unit", function()
  it("is that of RFC 9106", function()
    local hash = crypto.argon2id(("\1"):rep(32), { memory = 32, time = 3, lanes = 4, length = 32, salt = ("\2"):rep(16),
      key = ("\3"):rep(8), data = ("\4"):rep(12) })
    local salt, tag = hash:match("^%$argon2id%$v=19%$m=32,t=3,p=4%$([%w+/]+)%$([%w+/]+)$")
    assert.equal(("\2"):rep(16), crypto.unbase64(salt))
    assert.equal("0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659", shell.hex(crypto.unbase64(tag)))
  end)

  it("makes a hash that its password verifies and no other", function()
    local secret = host.secret("pw", "canary-value")
    local hash = crypto.argon2id(secret, { memory = 256, time = 1, lanes = 1 })
    assert.matches("^%$argon2id%$v=19%$m=256,t=1,p=1%$", hash)
    assert.is_true(crypto.verify(secret, hash))
    assert.is_false(crypto.verify("canary-valuf", hash))
    assert.not_equal(hash, crypto.argon2id(secret, { memory = 256, time = 1, lanes = 1 }))
    assert.matches("m=65536,t=3,p=4", (crypto.argon2id "x"), 1, true)
  end)

  it("takes a NUL and a long password as they are", function()
    local opts = { memory = 64, time = 1, lanes = 1, salt = "12345678" }
    assert.not_equal(crypto.argon2id("a", opts), crypto.argon2id("a\0b", opts))
    assert.is_string(crypto.argon2id(("x"):rep(100000), opts))
  end)

  it("raises for wrong types and ranges", function()
    for _, opts in ipairs { { memory = 7, lanes = 1 }, { memory = 31, lanes = 4 }, { time = 0 }, { lanes = 0 }, { length = 8 },
      { salt = "short" }, { salt = 1 }, { key = 1 }, { nope = 1 }, { memory = 1 << 21 } } do
      assert.has_error(function() crypto.argon2id("x", opts) end)
    end
    assert.has_error(function() crypto.argon2id(1) end)
    assert.has_error(function() crypto.argon2id("x", 1) end)
  end)
end)

describe("crypto.verify #unit", function()
  it("says when a hash is none that it knows", function()
    for _, hash in ipairs { "", "x", "$1$abc$def", "$argon2id$v=19$m=64,t=1,p=1$broken", "$argon2i$v=19$m=64,t=1,p=1$a$b",
      "$2y$05$tooshort", "$2x" .. ("!"):rep(57), ("$argon2id$"):rep(100), "a\0b" } do
      failed("format", crypto.verify("x", hash))
    end
  end)

  it("raises for wrong types", function()
    assert.has_error(function() crypto.verify("x", 1) end)
    assert.has_error(function() crypto.verify(1, "x") end)
    assert.has_error(function() crypto.verify("x") end)
  end)
end)
