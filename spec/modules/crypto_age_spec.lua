-- crypto_age_spec.lua: age files, with the age command as peer, and files made by hand that
-- break one rule of the specification each.
local crypto = require "crypto"
local host = require "host"
local shell = require "support.shell"

-- The specification's own example.
local spec_identity = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
local spec_recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"

local function failed(code, ...)
  local value, err = ...
  assert.is_nil(value)
  assert.equal(code, err.code)
  assert.equal("crypto", err.module)
  return err
end

local function raw(text)
  return crypto.base64(text, { pad = false })
end

local function noise(size)
  return size == 0 and "" or crypto.random_bytes((size + 1) // 2):rep(2):sub(1, size)
end

local zero_nonce = ("\0"):rep(12)
local chunk = 65536

-- An X25519 stanza by hand, with parts of it replaced.
local function stanza(key, recipient, change)
  change = change or {}
  local secret = crypto.random_bytes(32)
  local share = change.share or crypto.x25519(secret)
  local shared = crypto.x25519(secret, recipient)
  local wrap = crypto.hkdf_sha256(shared, share .. recipient, "age-encryption.org/v1/X25519", 32)
  local body = change.body or crypto.seal(wrap, zero_nonce, "", key)
  local args = change.args or ("X25519 " .. (change.share64 or raw(share)))
  return "-> " .. args .. "\n" .. (change.body64 or raw(body)) .. "\n"
end

local function chunk_nonce(number, last)
  return ("\0"):rep(3) .. (">I8"):pack(number) .. (last and "\1" or "\0")
end

-- A whole file by hand. chunks: { { text, number, last }, ... }
local function file(change)
  change = change or {}
  local key = change.key or crypto.random_bytes(16)
  local recipient = change.recipient or crypto.x25519(change.identity)
  local head = (change.version or "age-encryption.org/v1") .. "\n"
    .. (change.before or "") .. (change.stanzas or stanza(key, recipient, change.stanza)) .. (change.after or "") .. "---"
  local mac = crypto.hmac_sha256(crypto.hkdf_sha256(key, "", "header", 32), head)
  head = head .. (change.mac or (" " .. raw(shell.bytes(mac)))) .. "\n"
  local nonce = crypto.random_bytes(16)
  local payload = crypto.hkdf_sha256(key, nonce, "payload", 32)
  local parts = {}
  for i, c in ipairs(change.chunks or { { "hello", 0, true } }) do
    parts[i] = crypto.seal(payload, chunk_nonce(c[2], c[3]), "", c[1])
  end
  return head .. (change.nonce or nonce) .. table.concat(parts) .. (change.tail or "")
end

local function with_age(decrypted)
  shell.write("in.age", decrypted)
  -- It makes no file for an empty text.
  shell.write("out", "")
  local _, ok = shell.run(("age -d -i %s -o %s %s"):format(shell.path "id", shell.path "out", shell.path "in.age"))
  return ok
end

describe("crypto.age keys #unit", function()
  it("are those of the specification", function()
    assert.equal(spec_recipient, crypto.age_recipient(spec_identity))
    assert.equal(1, crypto.age_check(spec_recipient))
  end)

  it("are read by the age command, and its keys by us", function()
    finally(shell.clean)
    local id = crypto.age_identity { name = "backup.identity" }
    assert.equal("[secret backup.identity]", tostring(id.identity))
    assert.matches("^AGE%-SECRET%-KEY%-1[0-9A-Z]+$", host.reveal(id.identity))
    shell.write("id", host.reveal(id.identity) .. "\n")
    assert.equal(id.recipient .. "\n", (shell.run("age-keygen -y " .. shell.path "id")))
    assert.equal(id.recipient, crypto.age_recipient(id.identity))
    for _ = 1, 5 do
      os.remove(shell.path "new")
      shell.run("age-keygen -o " .. shell.path "new")
      local text = shell.read "new"
      assert.equal(text:match("public key: (%S+)"), crypto.age_recipient(text))
    end
  end)

  it("differ each time", function()
    assert.not_equal(crypto.age_identity().recipient, crypto.age_identity().recipient)
  end)

  it("are refused when malformed", function()
    local r, i = spec_recipient, spec_identity
    for _, text in ipairs { "", "x", r:sub(1, -2), r .. "q", r:gsub("z", "x", 1), r:upper(), "Age" .. r:sub(4), i,
      "age1" .. ("q"):rep(58), (r:gsub("j$", "q")), r .. "\0", "age2" .. r:sub(5), (r:gsub("^age", "agf")), r .. "\n" .. i,
      "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG" } do
      failed("recipient", crypto.age_check(text))
      failed("recipient", crypto.age_encrypt("x", text))
    end
    for _, text in ipairs { "", "# only a comment\n", i:lower(), i:sub(1, -2), i:gsub("G", "Y", 1), r, i .. "\nx",
      i:sub(1, 20) .. i:sub(21):lower() } do
      failed("identity", crypto.age_recipient(text))
    end
    failed("recipient", crypto.age_check {})
    failed("recipient", crypto.age_check { r, "x" })
  end)

  it("come as a text of several lines, with comments, or as a list", function()
    local a, b = crypto.age_identity(), crypto.age_identity()
    assert.equal(2, crypto.age_check(("# ours\n%s\n\r\n%s \n"):format(a.recipient, b.recipient)))
    assert.equal(2, crypto.age_check { a.recipient, b.recipient })
    assert.equal(a.recipient, crypto.age_recipient("# created\n" .. host.reveal(a.identity) .. "\n"))
    local many = {}
    for n = 1, 65 do many[n] = a.recipient end
    failed("too_many", crypto.age_check(many))
  end)

  it("of a small order are refused", function()
    -- The Bech32 of 32 zero bytes.
    local text = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqquz9hfx"
    local _, err = crypto.age_check(text)
    assert.equal("recipient", err.code)
    failed("recipient", crypto.age_encrypt("x", text))
  end)
end)

describe("crypto.age_encrypt and age_decrypt #unit", function()
  local a, b, c = crypto.age_identity(), crypto.age_identity(), crypto.age_identity()
  local sizes = { 0, 1, 15, 16, 17, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 5, 20 * chunk + 3 }

  it("give back what went in, of every size around a chunk", function()
    for _, size in ipairs(sizes) do
      local text = noise(size)
      local sealed = assert(crypto.age_encrypt(text, a.recipient))
      assert.equal(text, crypto.age_decrypt(sealed, a.identity), size)
      assert.not_equal(sealed, crypto.age_encrypt(text, a.recipient))
    end
  end)

  it("write what the age command reads", function()
    finally(shell.clean)
    shell.write("id", host.reveal(b.identity))
    for _, size in ipairs(sizes) do
      local text = noise(size)
      for _, armor in ipairs { false, true } do
        assert.is_true(with_age(assert(crypto.age_encrypt(text, { a.recipient, b.recipient }, { armor = armor }))), size)
        assert.equal(text, shell.read "out")
      end
    end
  end)

  it("read what the age command writes", function()
    finally(shell.clean)
    for _, size in ipairs(sizes) do
      local text = noise(size)
      shell.write("plain", text)
      for _, flag in ipairs { "", "-a" } do
        local out, ok = shell.run(("age %s -r %s -r %s -o %s %s"):format(flag, a.recipient, b.recipient, shell.path "sealed",
          shell.path "plain"))
        assert.is_true(ok, out)
        assert.equal(text, crypto.age_decrypt(shell.read "sealed", b.identity), size .. flag)
      end
    end
  end)

  it("pass over recipients of other kinds", function()
    finally(shell.clean)
    local key = crypto.ed25519_keypair().public
    shell.write("plain", "hello")
    shell.write("keys", key .. "\n" .. a.recipient .. "\n")
    local out, ok = shell.run(("age -R %s -o %s %s"):format(shell.path "keys", shell.path "sealed", shell.path "plain"))
    assert.is_true(ok, out)
    assert.equal("hello", crypto.age_decrypt(shell.read "sealed", a.identity))
  end)

  it("need one of the identities", function()
    local sealed = crypto.age_encrypt("hello", { a.recipient, b.recipient })
    assert.equal("hello", crypto.age_decrypt(sealed, { c.identity, b.identity }))
    failed("no_identity", crypto.age_decrypt(sealed, c.identity))
    failed("identity", crypto.age_decrypt(sealed, {}))
    failed("identity", crypto.age_decrypt(sealed, "# nothing"))
  end)

  it("keep secrets secret", function()
    local sealed = crypto.age_encrypt(host.secret("credentials", "canary-value"), a.recipient)
    assert.is_string(sealed)
    local opened = crypto.age_decrypt(sealed, a.identity, { name = "restored" })
    assert.equal("[secret restored]", tostring(opened))
    assert.equal("canary-value", host.reveal(opened))
    failed("short", crypto.age_decrypt(crypto.age_encrypt("short", a.recipient), a.identity, { name = "restored" }))
  end)

  it("let the loop go on with what is long", function()
    local turns, stop = 0, false
    local other = host.task(function()
      while not stop do
        host.sleep(0.001)
        turns = turns + 1
      end
    end)
    local big = ("x"):rep(24 << 20)
    local sealed = crypto.age_encrypt(big, a.recipient)
    assert.is_true(turns > 0)
    turns = 0
    assert.is_true(crypto.age_decrypt(sealed, a.identity) == big)
    assert.is_true(turns > 0)
    stop = true
    other:join(5)
  end)

  it("say when a file is encrypted with a passphrase", function()
    local key = crypto.random_bytes(16)
    local sealed = file { key = key, recipient = crypto.x25519(("i"):rep(32)),
      stanzas = "-> scrypt " .. raw(("s"):rep(16)) .. " 10\n" .. raw(("b"):rep(32)) .. "\n" }
    failed("passphrase", crypto.age_decrypt(sealed, a.identity))
  end)

  it("raise for wrong types and options", function()
    assert.has_error(function() crypto.age_encrypt("x") end)
    assert.has_error(function() crypto.age_encrypt(1, spec_recipient) end)
    assert.has_error(function() crypto.age_encrypt("x", 1) end)
    assert.has_error(function() crypto.age_encrypt("x", { { spec_recipient } }) end)
    assert.has_error(function() crypto.age_encrypt("x", spec_recipient, { nope = 1 }) end)
    assert.has_error(function() crypto.age_encrypt("x", spec_recipient, { armor = 1 }) end)
    assert.has_error(function() crypto.age_decrypt("x") end)
    assert.has_error(function() crypto.age_decrypt(1, spec_identity) end)
    assert.has_error(function() crypto.age_decrypt("x", spec_identity, { nope = 1 }) end)
    assert.has_error(function() crypto.age_identity { nope = 1 } end)
    assert.has_error(function() crypto.age_recipient(1) end)
    assert.has_error(function() crypto.age_check() end)
    assert.has_error(function() crypto.age_check(1) end)
  end)
end)

describe("crypto.age_decrypt and the rules of the format #unit", function()
  local id = crypto.age_identity()
  local key = crypto.random_bytes(16)
  local recipient

  -- The raw recipient, from a file that is encrypted to it: Bech32 by hand.
  do
    local alphabet, v, bits, out = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 0, 0, {}
    for ch in id.recipient:sub(5, -7):gmatch(".") do
      v, bits = (v << 5 | (alphabet:find(ch, 1, true) - 1)) & 0xfff, bits + 5
      if bits >= 8 then
        bits = bits - 8
        out[#out + 1] = string.char(v >> bits & 255)
      end
    end
    recipient = table.concat(out)
  end
  local full = ("x"):rep(chunk)

  local function made(change)
    change.key, change.recipient = key, recipient
    return file(change)
  end

  local accepted = {
    ["plain"] = made {},
    ["an unknown stanza before"] = made { before = "-> grease something else\n" .. ("A"):rep(64) .. "\n\n" },
    ["an unknown stanza after"] = made { after = "-> x\n\n" },
    ["an empty payload"] = made { chunks = { { "", 0, true } } },
    ["a full last chunk"] = made { chunks = { { full, 0, true } } },
    ["two chunks"] = made { chunks = { { full, 0, false }, { "y", 1, true } } },
    ["the stanza of somebody else before"] = made { before = stanza(key, crypto.x25519(("o"):rep(32))) },
  }
  local good = accepted.plain
  local refused = {
    ["another version"] = made { version = "age-encryption.org/v2" },
    ["an empty file"] = "",
    ["no header"] = "hello\n",
    ["a carriage return"] = made { version = "age-encryption.org/v1\r" },
    ["no stanza"] = made { stanzas = "" },
    ["a stanza without arguments"] = made { after = "-> \n\n" },
    ["a stanza without a blank"] = made { after = "->x\n\n" },
    ["two blanks between arguments"] = made { after = "-> a  b\n\n" },
    ["a blank at the end of the arguments"] = made { after = "-> a \n\n" },
    ["a byte that is no text in the arguments"] = made { after = "-> a\xff\n\n" },
    ["a body line that is too long"] = made { after = "-> a\n" .. ("A"):rep(65) .. "\n" },
    ["a body without a short line"] = made { after = "-> a\n" .. ("A"):rep(64) .. "\n" },
    ["padding in a body"] = made { after = "-> a\nQQ==\n" },
    ["stray bits in a body"] = made { after = "-> a\nQR\n" },
    ["X25519 without a share"] = made { stanza = { args = "X25519" } },
    ["X25519 with two shares"] = made { stanza = { args = "X25519 " .. raw(recipient) .. " x" } },
    ["a share that is too short"] = made { stanza = { share64 = raw(("x"):rep(31)) } },
    ["a share that is too long"] = made { stanza = { share64 = raw(("x"):rep(33)) } },
    ["a share with padding"] = made { stanza = { share64 = crypto.base64(("x"):rep(32)) } },
    ["a share of a small order"] = made { stanza = { share = ("\0"):rep(32) } },
    ["a body that is too short"] = made { stanza = { body = ("b"):rep(31) } },
    ["a body that is too long"] = made { stanza = { body = ("b"):rep(33) } },
    ["a body of two lines"] = made { stanza = { body = ("b"):rep(64) } },
    ["a body that does not open"] = made { stanza = { body = ("b"):rep(32) } },
    ["a wrong MAC"] = made { mac = " " .. raw(("m"):rep(32)) },
    ["a MAC that is too short"] = made { mac = " " .. raw(("m"):rep(31)) },
    ["no MAC"] = made { mac = "" },
    ["an empty MAC"] = made { mac = " " },
    ["a blank behind the MAC"] = made { mac = " " .. raw(("m"):rep(32)) .. " " },
    ["a changed header"] = (good:gsub("X25519", "X25518", 1)),
    ["no payload"] = made { chunks = {} },
    ["no nonce"] = good:match("^.-\n%-%-%-[^\n]*\n"),
    ["half a nonce"] = good:match("^.-\n%-%-%-[^\n]*\n........"),
    ["another nonce"] = made { nonce = ("n"):rep(16) },
    ["a chunk that is cut"] = good:sub(1, -2),
    ["a chunk that was changed"] = good:sub(1, -2) .. string.char(good:byte(-1) ~ 1),
    ["something behind the last chunk"] = good .. "x",
    ["no last chunk"] = made { chunks = { { full, 0, false } } },
    ["a short chunk that is not the last"] = made { chunks = { { "x", 0, false }, { "y", 1, true } } },
    ["a last chunk that is not marked"] = made { chunks = { { full, 0, false }, { "y", 1, false } } },
    ["a last chunk before the end"] = made { chunks = { { full, 0, true }, { "y", 1, true } } },
    ["an empty last chunk behind a full one"] = made { chunks = { { full, 0, false }, { "", 1, true } } },
    ["a wrong number"] = made { chunks = { { full, 0, false }, { "y", 2, true } } },
    ["chunks in a wrong order"] = made { chunks = { { full, 1, false }, { full, 0, false }, { "y", 2, true } } },
    ["a chunk that is too long"] = made { chunks = { { full .. "x", 0, true } } },
    ["a payload without a mark at all"] = made { chunks = { { "", 0, false } } },
  }

  for name, bytes in pairs(accepted) do
    it("accepts " .. name, function()
      finally(shell.clean)
      shell.write("id", host.reveal(id.identity))
      assert.is_true(with_age(bytes))
      assert.equal(shell.read "out", crypto.age_decrypt(bytes, id.identity))
    end)
  end

  for name, bytes in pairs(refused) do
    it("refuses " .. name, function()
      finally(shell.clean)
      shell.write("id", host.reveal(id.identity))
      assert.is_false(with_age(bytes), "the age command accepts it")
      local text, err = crypto.age_decrypt(bytes, id.identity)
      assert.is_nil(text)
      assert.is_truthy(({ format = true, corrupt = true, no_identity = true })[err.code], err.code)
    end)
  end

  it("refuses every single changed byte of a small file", function()
    for i = 1, #good do
      local changed = good:sub(1, i - 1) .. string.char(good:byte(i) ~ 1) .. good:sub(i + 1)
      assert.is_nil((crypto.age_decrypt(changed, id.identity)), i)
      assert.is_nil((crypto.age_decrypt(good:sub(1, i - 1), id.identity)), i)
    end
  end)

  it("refuses a header without an end in linear time", function()
    local start = os.clock()
    failed("format", crypto.age_decrypt("age-encryption.org/v1\n" .. ("-> a\n\n"):rep(1000000), id.identity))
    failed("format", crypto.age_decrypt("age-encryption.org/v1\n" .. ("x"):rep(10000000), id.identity))
    assert.is_true(os.clock() - start < 5)
  end)

  it("is strict about armor", function()
    finally(shell.clean)
    shell.write("id", host.reveal(id.identity))
    local text = crypto.age_encrypt(("hello "):rep(40), id.recipient, { armor = true })
    assert.is_string(crypto.age_decrypt(text:gsub("\n", "\r\n"), id.identity))
    assert.is_string(crypto.age_decrypt(text .. "\n \t\n", id.identity))
    for name, bad in pairs {
      ["something behind it"] = text .. "x",
      ["no end"] = text:gsub("%-%-%-%-%-END.*$", ""),
      ["a wrong end"] = text:gsub("END AGE", "END FOO"),
      ["a short line"] = text:gsub("\n(%w%w%w%w)", "\n%1\n", 1),
      ["an empty line"] = text:gsub("\n", "\n\n", 1),
      ["a blank"] = text:gsub("\n", "\n ", 1),
      ["a long line"] = text:gsub("(\n[%w+/]+)\n", "%1", 1),
      ["no padding"] = text:gsub("=+\n", "\n"),
      ["a foreign character"] = text:gsub("\n%w", "\n!", 1),
      ["nothing in it"] = "-----BEGIN AGE ENCRYPTED FILE-----\n-----END AGE ENCRYPTED FILE-----\n",
      ["text at its beginning"] = text:gsub("\n", "x\n", 1),
    } do
      if bad ~= text then
        assert.is_nil((crypto.age_decrypt(bad, id.identity)), name)
        assert.is_false(with_age(bad), "the age command accepts " .. name)
      end
    end
  end)
end)

describe("crypto.age_encrypt_file and age_decrypt_file #unit", function()
  local id = crypto.age_identity()

  it("stream a file, and the age command agrees", function()
    finally(shell.clean)
    shell.write("id", host.reveal(id.identity))
    local plain = shell.path "plain"
    os.execute("head -c 33000001 /dev/urandom > " .. plain)
    local ok, size = crypto.age_encrypt_file(plain, shell.path "sealed", id.recipient)
    assert.is_true(ok)
    assert.equal(33000001, size)
    assert.is_true(with_age(shell.read "sealed"))
    assert.equal(crypto.sha256_file(plain), (crypto.sha256_file(shell.path "out")))
    ok, size = crypto.age_decrypt_file(shell.path "sealed", shell.path "back", id.identity)
    assert.is_true(ok)
    assert.equal(33000001, size)
    assert.equal(crypto.sha256_file(plain), (crypto.sha256_file(shell.path "back")))
    assert.equal("600\n600\n", (shell.run("stat -c %a " .. shell.path "sealed " .. shell.path "back")))
  end)

  it("leave nothing behind when they fail", function()
    finally(shell.clean)
    local other = crypto.age_identity()
    shell.write("plain", ("x"):rep(300000))
    assert.is_true((crypto.age_encrypt_file(shell.path "plain", shell.path "sealed", id.recipient)))
    local sealed = shell.read "sealed"
    shell.write("cut", sealed:sub(1, -2))
    shell.write("changed", sealed:sub(1, 250000) .. string.char(sealed:byte(250001) ~ 1) .. sealed:sub(250002))
    shell.write("old", "untouched")
    failed("corrupt", crypto.age_decrypt_file(shell.path "cut", shell.path "old", id.identity))
    failed("corrupt", crypto.age_decrypt_file(shell.path "changed", shell.path "old", id.identity))
    failed("no_identity", crypto.age_decrypt_file(shell.path "sealed", shell.path "old", other.identity))
    failed("not_found", crypto.age_encrypt_file(shell.path "nothing", shell.path "old", id.recipient))
    failed("not_found", crypto.age_decrypt_file(shell.path "nothing", shell.path "old", id.identity))
    failed("not_found", crypto.age_encrypt_file(shell.path "plain", shell.path "no/where", id.recipient))
    failed("is_directory", crypto.age_encrypt_file("/tmp", shell.path "old", id.recipient))
    failed("recipient", crypto.age_encrypt_file(shell.path "plain", shell.path "old", "x"))
    failed("identity", crypto.age_decrypt_file(shell.path "sealed", shell.path "old", "x"))
    failed("format", crypto.age_decrypt_file(shell.path "plain", shell.path "old", id.identity))
    assert.equal("untouched", shell.read "old")
    assert.equal("changed\ncut\nold\nplain\nsealed\n", (shell.run("LC_ALL=C ls -A " .. shell.path "")))
  end)

  it("say that a file is armored", function()
    finally(shell.clean)
    shell.write("armored", crypto.age_encrypt("hello", id.recipient, { armor = true }))
    assert.matches("armored", failed("format", crypto.age_decrypt_file(shell.path "armored", shell.path "x", id.identity)).message)
  end)

  it("say that the disk is full, and leave nothing there", function()
    local _, root = shell.run("mkdir -p /tmp/lbrun-full && mount -t tmpfs -o size=1m tmpfs /tmp/lbrun-full")
    if not root then
      return pending("a small file system cannot be mounted here")
    end
    finally(function()
      shell.clean()
      os.execute("umount /tmp/lbrun-full && rmdir /tmp/lbrun-full")
    end)
    shell.write("plain", ("x"):rep(2 << 20))
    failed("no_space", crypto.age_encrypt_file(shell.path "plain", "/tmp/lbrun-full/sealed", id.recipient))
    assert.equal("", (shell.run("ls -A /tmp/lbrun-full")))
  end)

  it("stop when their task is cancelled", function()
    finally(shell.clean)
    os.execute("truncate -s 4G " .. shell.path "sparse")
    local task = host.task(function()
      return crypto.age_encrypt_file(shell.path "sparse", shell.path "sealed", id.recipient)
    end)
    host.sleep(0.1)
    task:cancel()
    local ok, value, err = task:join(5)
    assert.is_true(ok)
    failed("interrupted", value, err)
    for _ = 1, 100 do
      if shell.run("ls " .. shell.path "") == "sparse\n" then break end
      host.sleep(0.02)
    end
    assert.equal("sparse\n", (shell.run("ls " .. shell.path "")))
  end)

  it("raise for wrong types", function()
    for _, fn in ipairs { crypto.age_encrypt_file, crypto.age_decrypt_file } do
      assert.has_error(function() fn() end)
      assert.has_error(function() fn("a") end)
      assert.has_error(function() fn("a", 1, spec_recipient) end)
      assert.has_error(function() fn("a\0b", "c", spec_recipient) end)
      assert.has_error(function() fn("", "c", spec_recipient) end)
      assert.has_error(function() fn("a", "b", 1) end)
    end
  end)
end)
