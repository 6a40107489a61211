-- crypto_cert_spec.lua: certificates, PKCS#12 and RSA keys, with openssl(1) as peer.
local crypto = require "crypto"
local host = require "host"
local shell = require "support.shell"

local function failed(code, ...)
  local value, err = ...
  assert.is_nil(value)
  assert.equal(code, err.code)
  return err
end

local function made(name, command)
  local out, ok = shell.run(command:gsub("@", shell.path ""))
  assert.is_true(ok, out)
  return shell.read(name)
end

describe("crypto.self_signed #unit", function()
  it("makes a certificate that openssl accepts for its names and no other", function()
    finally(shell.clean)
    local pair = crypto.self_signed { names = { "example.com", "*.example.com", "192.0.2.1", "2001:db8::1" }, days = 90,
      name = "site.key" }
    assert.equal("[secret site.key]", tostring(pair.key))
    shell.write("cert.pem", pair.cert)
    shell.write("key.pem", host.reveal(pair.key))
    local function accepted(flag)
      local _, ok = shell.run(("openssl verify -CAfile %s %s %s"):format(shell.path "cert.pem", flag, shell.path "cert.pem"))
      return ok
    end
    assert.is_true(accepted "-purpose sslserver -verify_hostname example.com")
    assert.is_true(accepted "-verify_hostname files.example.com")
    assert.is_true(accepted "-verify_ip 192.0.2.1")
    assert.is_true(accepted "-verify_ip 2001:db8::1")
    assert.is_false(accepted "-verify_hostname example.org")
    assert.is_false(accepted "-purpose sslclient")
    local out = shell.run("openssl x509 -noout -text -in " .. shell.path "cert.pem")
    for _, part in ipairs { "CA:FALSE", "prime256v1", "ecdsa-with-SHA256", "Digital Signature", "TLS Web Server" } do
      assert.matches(part, out, 1, true)
    end
    local check, ok = shell.run("openssl pkey -noout -check -in " .. shell.path "key.pem")
    assert.is_true(ok, check)
  end)

  it("is read back by crypto.certificate", function()
    local now = os.time()
    local pair = crypto.self_signed { names = { "a.example.com", "10.0.0.1" }, days = 30 }
    local cert = assert(crypto.certificate(pair.cert))
    assert.same({ "a.example.com", "10.0.0.1" }, cert.names)
    assert.equal("CN=a.example.com", cert.subject)
    assert.equal(cert.subject, cert.issuer)
    assert.is_true(cert.self_signed)
    assert.equal("EC", cert.key)
    assert.equal(256, cert.bits)
    assert.equal(1, cert.count)
    assert.is_true(math.abs(cert.not_before - (now - 3600)) < 60)
    assert.is_true(math.abs(cert.not_after - (now + 30 * 86400)) < 60)
    assert.matches("^%x+$", cert.sha256)
    assert.is_true(crypto.certificate_matches(pair.cert, pair.key))
  end)

  it("has a serial number of its own each time", function()
    local one = crypto.certificate(crypto.self_signed { names = { "a" } }.cert)
    local two = crypto.certificate(crypto.self_signed { names = { "a" } }.cert)
    assert.not_equal(one.serial, two.serial)
    assert.equal(32, #one.serial)
  end)

  it("takes a name longer than a common name may be", function()
    local long = ("abcdefghi."):rep(8) .. "example.com"
    local cert = crypto.certificate(crypto.self_signed { names = { long } }.cert)
    assert.same({ long }, cert.names)
    assert.equal("", cert.subject)
  end)

  it("raises for names that are none, and for wrong options", function()
    for _, opts in ipairs {
      {}, { names = {} }, { names = "a" }, { names = { 1 } }, { names = { "" } }, { names = { "a b" } },
      { names = { "a\nDNS:b" } }, { names = { "a,DNS:b" } }, { names = { ("a"):rep(254) } }, { names = { "a" }, days = 0 },
      { names = { "a" }, days = 4000 }, { names = { "a" }, nope = 1 }, { names = { "a", false } },
    } do
      assert.has_error(function() crypto.self_signed(opts) end)
    end
    assert.has_error(function() crypto.self_signed() end)
  end)
end)

describe("crypto.certificate #unit", function()
  it("reads what openssl makes", function()
    finally(shell.clean)
    local pem = made("rsa.pem", "openssl req -x509 -newkey rsa:2048 -nodes -keyout @rsa.key -out @rsa.pem -days 10 "
      .. "-subj '/C=DE/O=Zo\u{eb}, Ltd/CN=old.example.com' -utf8")
    local cert = assert(crypto.certificate(pem))
    assert.equal("RSA", cert.key)
    assert.equal(2048, cert.bits)
    assert.same({ "old.example.com" }, cert.names)
    assert.equal("CN=old.example.com,O=Zo\u{eb}\\, Ltd,C=DE", cert.subject)
    local print = shell.run("openssl x509 -noout -fingerprint -sha256 -in " .. shell.path "rsa.pem")
    assert.equal(print:match("=(.*)\n"):gsub(":", ""):lower(), cert.sha256)
    assert.equal(shell.run("openssl x509 -noout -serial -in " .. shell.path "rsa.pem"):match("=(.*)\n"), cert.serial)
    local stop = shell.run("date -u +%s -d \"$(openssl x509 -noout -enddate -in " .. shell.path "rsa.pem" .. " | cut -d= -f2)\"")
    assert.equal(tonumber(stop), cert.not_after)
  end)

  it("tells a certificate of an authority from a self-signed one, and counts a chain", function()
    finally(shell.clean)
    made("ca.pem", "openssl req -x509 -newkey ed25519 -nodes -keyout @ca.key -out @ca.pem -days 10 -subj /CN=ca")
    made("leaf.csr", "openssl req -new -newkey rsa:2048 -nodes -keyout @leaf.key -out @leaf.csr -subj /CN=leaf")
    local leaf = made("leaf.pem", "openssl x509 -req -in @leaf.csr -CA @ca.pem -CAkey @ca.key -CAcreateserial -days 5 -out @leaf.pem")
    local ca = shell.read "ca.pem"
    local cert = assert(crypto.certificate(leaf .. ca))
    assert.is_false(cert.self_signed)
    assert.equal("CN=leaf", cert.subject)
    assert.equal("CN=ca", cert.issuer)
    assert.equal(2, cert.count)
    assert.is_true(crypto.certificate(ca).self_signed)
    assert.equal("ED25519", crypto.certificate(ca).key)
    assert.is_true(crypto.certificate_matches(leaf .. ca, shell.read "leaf.key"))
    assert.is_false(crypto.certificate_matches(leaf, shell.read "ca.key"))
  end)

  it("refuses what is no certificate", function()
    local pair = crypto.self_signed { names = { "a" } }
    for _, text in ipairs { "", "x", host.reveal(pair.key), pair.cert:sub(1, 200), (pair.cert:gsub("M", "!", 3)),
      "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ("x"):rep(2 << 20) } do
      failed("format", crypto.certificate(text))
    end
    failed("format", crypto.certificate_matches("x", pair.key))
    failed("format", crypto.certificate_matches(pair.cert, "x"))
    failed("format", crypto.certificate_matches(pair.cert, pair.cert))
  end)

  it("never asks for a passphrase", function()
    finally(shell.clean)
    local pair = crypto.self_signed { names = { "a" } }
    shell.write("plain", host.reveal(pair.key))
    local locked = made("locked", "openssl pkey -in @plain -aes256 -passout pass:secret -out @locked")
    failed("format", crypto.certificate_matches(pair.cert, locked))
  end)

  it("raises for wrong types", function()
    for _, value in ipairs { 1, {}, true } do
      assert.has_error(function() crypto.certificate(value) end)
      assert.has_error(function() crypto.certificate_matches("x", value) end)
    end
    assert.has_error(function() crypto.certificate() end)
    assert.has_error(function() crypto.certificate_matches "x" end)
  end)
end)

describe("crypto.pkcs12 #unit", function()
  local password = host.secret("p12.password", "p12 p\u{e4}ssword'")
  local pair = crypto.self_signed { names = { "a.example.com" } }

  it("is read by openssl, which needs the password", function()
    finally(shell.clean)
    local file = crypto.pkcs12 { cert = pair.cert, key = pair.key, password = password, friendly_name = "site" }
    assert.equal("[secret pkcs12]", tostring(file))
    shell.write("p12", host.reveal(file))
    shell.write("pw", host.reveal(password) .. "\n")
    local out, ok = shell.run(("openssl pkcs12 -in %s -passin file:%s -nodes"):format(shell.path "p12", shell.path "pw"))
    assert.is_true(ok, out)
    assert.matches("friendlyName: site", out, 1, true)
    assert.matches(pair.cert:match("\n(.-)\n"), out, 1, true)
    shell.write("pw", "wrong\n")
    out, ok = shell.run(("openssl pkcs12 -in %s -passin file:%s -nodes"):format(shell.path "p12", shell.path "pw"))
    assert.is_false(ok, out)
  end)

  it("is opened again, chain included", function()
    local other = crypto.self_signed { names = { "chain" } }.cert
    for _, opts in ipairs { { cert = pair.cert, chain = other }, { cert = pair.cert .. other } } do
      opts.key, opts.password = pair.key, password
      local file = crypto.pkcs12(opts)
      local back = assert(crypto.pkcs12_open(file, password, { name = "back.key" }))
      assert.equal(pair.cert, back.cert)
      assert.equal(other, back.chain)
      assert.equal("[secret back.key]", tostring(back.key))
      assert.equal(host.reveal(pair.key), host.reveal(back.key))
    end
  end)

  it("made by openssl is opened", function()
    finally(shell.clean)
    shell.write("c", pair.cert)
    shell.write("k", host.reveal(pair.key))
    local file = made("p12", "openssl pkcs12 -export -in @c -inkey @k -passout pass:12345678 -out @p12")
    local back = assert(crypto.pkcs12_open(file, "12345678"))
    assert.equal(pair.cert, back.cert)
    assert.equal("", back.chain)
    assert.equal(host.reveal(pair.key), host.reveal(back.key))
    failed("password", crypto.pkcs12_open(file, "12345679"))
  end)

  it("refuses what does not belong together or is malformed", function()
    local other = crypto.self_signed { names = { "b" } }
    failed("mismatch", crypto.pkcs12 { cert = pair.cert, key = other.key, password = password })
    failed("format", crypto.pkcs12 { cert = "x", key = pair.key, password = password })
    failed("format", crypto.pkcs12 { cert = pair.cert, key = "x", password = password })
    failed("format", crypto.pkcs12_open("x", password))
    failed("format", crypto.pkcs12_open("", password))
    failed("password", crypto.pkcs12_open(crypto.pkcs12 { cert = pair.cert, key = pair.key, password = password }, "x"))
  end)

  it("raises for wrong types and options", function()
    for _, opts in ipairs { {}, { cert = pair.cert }, { cert = pair.cert, key = pair.key },
      { cert = 1, key = pair.key, password = password }, { cert = pair.cert, key = pair.key, password = "a\0b" },
      { cert = pair.cert, key = pair.key, password = password, nope = 1 } } do
      assert.has_error(function() crypto.pkcs12(opts) end)
    end
    assert.has_error(function() crypto.pkcs12_open("x") end)
    assert.has_error(function() crypto.pkcs12_open(1, "x") end)
    assert.has_error(function() crypto.pkcs12_open("x", "y", { nope = 1 }) end)
  end)
end)

describe("crypto.rsa_keypair #unit", function()
  it("makes a pair that openssl finds sound, while the loop goes on", function()
    finally(shell.clean)
    local turns = 0
    local other = host.task(function()
      for _ = 1, 3 do
        host.sleep(0.001)
        turns = turns + 1
      end
    end)
    local pair = crypto.rsa_keypair { name = "dkim.key" }
    other:join(5)
    assert.equal(3, turns)
    assert.equal("[secret dkim.key]", tostring(pair.private))
    shell.write("key", host.reveal(pair.private))
    local out, ok = shell.run("openssl pkey -noout -check -in " .. shell.path "key")
    assert.is_true(ok, out)
    assert.equal(pair.public, (shell.run("openssl pkey -pubout -in " .. shell.path "key")))
    assert.matches("2048 bit", (shell.run("openssl pkey -noout -text -in " .. shell.path "key")))
  end)

  it("raises for other sizes and options", function()
    for _, opts in ipairs { { bits = 1024 }, { bits = 2049 }, { bits = 8192 }, { bits = "x" }, { nope = 1 }, { name = 1 } } do
      assert.has_error(function() crypto.rsa_keypair(opts) end)
    end
  end)
end)
