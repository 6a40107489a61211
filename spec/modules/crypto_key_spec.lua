-- crypto_key_spec.lua: curves and ciphers by the RFCs' vectors, keys with ssh-keygen as peer.
local crypto = require "crypto"
local host = require "host"
local shell = require "support.shell"

local bytes, hex = shell.bytes, shell.hex

local function failed(code, ...)
  local value, err = ...
  assert.is_nil(value)
  assert.equal(code, err.code)
  return err
end

describe("crypto Ed25519 #unit", function()
  local vectors = {
    { "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
      "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b" },
    { "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
      "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00" },
    { "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
      "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
      "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a" },
  }

  it("is that of RFC 8032", function()
    for _, v in ipairs(vectors) do
      local seed, public, message, signature = bytes(v[1]), bytes(v[2]), bytes(v[3]), bytes(v[4])
      assert.equal(v[2], hex(crypto.ed25519_public(seed)))
      assert.equal(v[4], hex(crypto.ed25519_sign(seed, message)))
      assert.equal(v[4], hex(crypto.ed25519_sign(host.secret("seed", seed), message)))
      assert.is_true(crypto.ed25519_verify(public, message, signature))
      assert.is_false(crypto.ed25519_verify(public, message .. "x", signature))
      assert.is_false(crypto.ed25519_verify(public, message, signature:sub(1, 63) .. "\1"))
      assert.is_false(crypto.ed25519_verify(public, message, signature:sub(1, 63)))
      assert.is_false(crypto.ed25519_verify(("\1"):rep(32), message, signature))
    end
  end)

  it("raises for wrong sizes and types", function()
    for _, seed in ipairs { "", ("x"):rep(31), ("x"):rep(33), 1 } do
      assert.has_error(function() crypto.ed25519_public(seed) end)
      assert.has_error(function() crypto.ed25519_sign(seed, "m") end)
      assert.has_error(function() crypto.ed25519_verify(seed, "m", "s") end)
    end
    assert.has_error(function() crypto.ed25519_sign(("x"):rep(32)) end)
    assert.has_error(function() crypto.ed25519_verify(("x"):rep(32), "m") end)
  end)
end)

describe("crypto.x25519 #unit", function()
  it("is that of RFC 7748", function()
    for _, v in ipairs {
      { "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552" },
      { "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957" },
    } do
      assert.equal(v[3], hex(crypto.x25519(bytes(v[1]), bytes(v[2]))))
    end
    local alice = bytes "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
    local bob = bytes "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
    assert.equal("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a", hex(crypto.x25519(alice)))
    assert.equal("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f", hex(crypto.x25519(bob)))
    local shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert.equal(shared, hex(crypto.x25519(alice, crypto.x25519(bob))))
    assert.equal(shared, hex(crypto.x25519(bob, crypto.x25519(alice))))
  end)

  it("is that of RFC 7748 after a thousand rounds", function()
    local k = bytes("09" .. ("00"):rep(31))
    local u = k
    for i = 1, 1000 do
      k, u = crypto.x25519(k, u), k
      if i == 1 then
        assert.equal("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079", hex(k))
      end
    end
    assert.equal("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51", hex(k))
  end)

  it("refuses points of a small order", function()
    for _, point in ipairs { ("00"):rep(32), "01" .. ("00"):rep(31),
      "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800" } do
      failed("point", crypto.x25519(("x"):rep(32), bytes(point)))
    end
  end)

  it("raises for wrong sizes and types", function()
    assert.has_error(function() crypto.x25519 "x" end)
    assert.has_error(function() crypto.x25519(("x"):rep(32), "x") end)
    assert.has_error(function() crypto.x25519(1) end)
  end)
end)

describe("crypto.seal and unseal #unit", function()
  local key = bytes "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
  local nonce, data = bytes "070000004041424344454647", bytes "50515253c0c1c2c3c4c5c6c7"
  local text = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    .. "sunscreen would be it."

  it("are those of RFC 8439", function()
    local sealed = crypto.seal(key, nonce, data, text)
    assert.equal("d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
      .. "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
      .. "3ff4def08e4b7a9de576d26586cec64b6116" .. "1ae10b594f09e26a7e902ecbd0600691", hex(sealed))
    assert.equal(text, crypto.unseal(key, nonce, data, sealed))
  end)

  it("notice every change", function()
    local sealed = crypto.seal(key, nonce, data, text)
    for i = 1, #sealed do
      local changed = sealed:sub(1, i - 1) .. string.char(sealed:byte(i) ~ 1) .. sealed:sub(i + 1)
      failed("corrupt", crypto.unseal(key, nonce, data, changed))
    end
    failed("corrupt", crypto.unseal(key, nonce, data .. "x", sealed))
    failed("corrupt", crypto.unseal(key, ("x"):rep(12), data, sealed))
    failed("corrupt", crypto.unseal(key, nonce, data, sealed:sub(1, -2)))
    failed("corrupt", crypto.unseal(key, nonce, data, ""))
    assert.equal("", crypto.unseal(key, nonce, "", crypto.seal(key, nonce, "", "")))
  end)

  it("raise for wrong sizes and types", function()
    assert.has_error(function() crypto.seal("x", nonce, data, text) end)
    assert.has_error(function() crypto.seal(key, "x", data, text) end)
    assert.has_error(function() crypto.seal(key, nonce, 1, text) end)
    assert.has_error(function() crypto.seal(key, nonce, data) end)
    assert.has_error(function() crypto.unseal(key, nonce, data, 1) end)
  end)
end)

describe("crypto.ed25519_keypair #unit", function()
  it("makes a private key that ssh-keygen reads, with its public key and fingerprint", function()
    finally(shell.clean)
    for _, comment in ipairs { "", "admin@example.com", "with spaces \u{e9}", ("x"):rep(200), "1", "22", "333", "4444" } do
      local pair = crypto.ed25519_keypair { name = "admin.key", comment = comment }
      assert.equal("[secret admin.key]", tostring(pair.private))
      local path = shell.write("key", host.reveal(pair.private))
      local out, ok = shell.run("ssh-keygen -y -P '' -f " .. path)
      assert.is_true(ok, out)
      assert.equal(pair.public, (out:gsub("\n$", "")))
      assert.equal(pair.fingerprint, (shell.run("ssh-keygen -l -f " .. path):match("SHA256:%S+")))
    end
  end)

  it("signs what ssh-keygen verifies", function()
    finally(shell.clean)
    local pair = crypto.ed25519_keypair { comment = "me" }
    shell.write("key", host.reveal(pair.private))
    shell.write("message", "hello")
    local _, ok = shell.run(("ssh-keygen -Y sign -n test -f %s %s"):format(shell.path "key", shell.path "message"))
    assert.is_true(ok)
    shell.write("allowed", "me " .. pair.public .. "\n")
    local out, good = shell.run(("ssh-keygen -Y verify -n test -I me -f %s -s %s < %s"):format(shell.path "allowed",
      shell.path "message.sig", shell.path "message"))
    assert.is_true(good, out)
  end)

  it("makes another one each time", function()
    assert.not_equal(crypto.ed25519_keypair().public, crypto.ed25519_keypair().public)
  end)

  it("raises for a comment that is no line, and for unknown options", function()
    for _, opts in ipairs { { comment = "a\nb" }, { comment = ("x"):rep(201) }, { comment = 1 }, { nope = 1 },
      { comment = "a\27b" }, { name = "" } } do
      assert.has_error(function() crypto.ed25519_keypair(opts) end)
    end
  end)
end)

describe("crypto.ssh_public_key #unit", function()
  local function string32(s) return (">s4"):pack(s) end
  local function line(kind, ...)
    local parts = { string32(kind) }
    for i, part in ipairs { ... } do parts[i + 1] = string32(part) end
    return kind .. " " .. crypto.base64(table.concat(parts))
  end

  it("reads what ssh-keygen makes", function()
    finally(shell.clean)
    for _, case in ipairs { { "ed25519", "ssh-ed25519", 256 }, { "ecdsa -b 256", "ecdsa-sha2-nistp256", 256 },
      { "ecdsa -b 384", "ecdsa-sha2-nistp384", 384 }, { "ecdsa -b 521", "ecdsa-sha2-nistp521", 521 },
      { "rsa -b 2048", "ssh-rsa", 2048 }, { "rsa -b 3072", "ssh-rsa", 3072 } } do
      local path = shell.path(case[1]:gsub(" ", ""))
      local out, ok = shell.run(("ssh-keygen -q -N '' -C 'a comment' -t %s -f %s"):format(case[1], path))
      assert.is_true(ok, out)
      local text = shell.read(path .. ".pub")
      local key = assert(crypto.ssh_public_key(text))
      assert.equal(case[2], key.type)
      assert.equal(case[3], key.bits)
      assert.equal("a comment", key.comment)
      assert.equal(text:match("^%S+ %S+"), key.line)
      assert.equal(shell.run("ssh-keygen -l -f " .. path .. ".pub"):match("SHA256:%S+"), key.fingerprint)
    end
  end)

  it("takes blanks around, no comment, and keys of security tokens", function()
    local plain = line("ssh-ed25519", ("k"):rep(32))
    for _, text in ipairs { plain, " " .. plain .. "  \n", plain:gsub(" ", "\t  "), plain .. "\r\n" } do
      assert.equal("", assert(crypto.ssh_public_key(text)).comment)
    end
    assert.equal("a b  c", crypto.ssh_public_key(plain .. "  a b  c ").comment)
    assert.is_table(crypto.ssh_public_key(line("sk-ssh-ed25519@openssh.com", ("k"):rep(32), "ssh:")))
    assert.is_table(crypto.ssh_public_key(line("sk-ecdsa-sha2-nistp256@openssh.com", "nistp256", "\4" .. ("k"):rep(64), "ssh:")))
  end)

  it("refuses keys that are weak", function()
    failed("weak", crypto.ssh_public_key(line("ssh-dss", "p", "q", "g", "y")))
    failed("weak", crypto.ssh_public_key(line("ssh-rsa", "\1\0\1", "\0\xff" .. ("n"):rep(127))))
    failed("weak", crypto.ssh_public_key(line("ssh-rsa", "\1\0\1", "\x7f" .. ("n"):rep(255))))
    failed("weak", crypto.ssh_public_key(line("ssh-rsa", "\1", "\0\xff" .. ("n"):rep(255))))
    assert.equal(2048, crypto.ssh_public_key(line("ssh-rsa", "\1\0\1", "\0\xff" .. ("n"):rep(255))).bits)
  end)

  it("refuses what is malformed", function()
    local good = line("ssh-ed25519", ("k"):rep(32))
    for _, text in ipairs {
      "", " ", "ssh-ed25519", "ssh-ed25519 ", "nope AAAA", good:sub(1, -2), good:sub(1, -5), good:gsub("AAAA", "AA!A", 1),
      good .. "\n" .. good, good .. "=", good .. "AAAA", (good:gsub("^ssh%-ed25519", "ssh-rsa")),
      'command="x" ' .. good, "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "\0" .. good, good .. "\0", good .. " a\27b",
      line("ssh-ed25519", ("k"):rep(31)), line("ssh-ed25519", ("k"):rep(33)), line("ssh-ed25519", ("k"):rep(32), "more"),
      line("ssh-ed25519"), line("ssh-rsa", "\1\0\1"), line("ssh-rsa", "\1\0\1", "\xff" .. ("n"):rep(255)),
      line("ssh-rsa", "\1\0\1", "\0\1" .. ("n"):rep(255)), line("ssh-rsa", "", "\0\xff" .. ("n"):rep(255)),
      line("ecdsa-sha2-nistp256", "nistp384", "\4" .. ("k"):rep(96)), line("ecdsa-sha2-nistp256", "nistp256", "\2" .. ("k"):rep(32)),
      line("ecdsa-sha2-nistp256", "nistp256", "\4" .. ("k"):rep(63)), line("ecdsa-sha2-nistp256", "x"),
      line("sk-ssh-ed25519@openssh.com", ("k"):rep(32)), line("ssh-ed25519-cert-v01@openssh.com", "x"),
      "ssh-ed25519 " .. crypto.base64("\255\255\255\255ssh"), ("x"):rep(20000), "ssh-ed25519 " .. ("A"):rep(20000),
      (good:gsub("(%S+)$", function(b) return b .. "\n" end)) .. "x",
    } do
      local err = failed("syntax", crypto.ssh_public_key(text))
      assert.is_true(#err.message < 200)
    end
  end)

  it("says it when it is given a private key, and does not repeat it", function()
    local err = failed("syntax", crypto.ssh_public_key(host.reveal(crypto.ed25519_keypair().private)))
    assert.matches("private", err.message)
    assert.is_nil(err.message:find("b3Bl", 1, true))
  end)

  it("raises for wrong types", function()
    for _, value in ipairs { 1, {}, true, host.secret("k", "ssh-ed25519 AAAA") } do
      assert.has_error(function() crypto.ssh_public_key(value) end)
    end
    assert.has_error(function() crypto.ssh_public_key() end)
  end)
end)
