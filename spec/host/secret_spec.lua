-- secret_spec.lua: Secrets: what Lua can and cannot do with them.

local host = require "host"
local process = require "process"

local function release(s) local _ <close> = s end

describe("secret #unit", function()
  it("prints as its name", function()
    local s <close> = host.secret("db.password", "hunter2-hunter2")
    assert.equal("[secret db.password]", tostring(s))
    assert.equal("[secret db.password]", ("%s"):format(s))
    assert.equal("db.password", s:name())
  end)

  it("cannot be concatenated, indexed, changed, measured, called or iterated", function()
    local s <close> = host.secret("x", "hunter2-hunter2")
    for _, misuse in ipairs {
      function() return s .. "a" end, function() return "a" .. s end, function() return s .. s end,
      function() return s .. {} end, function() return s.data end, function() return s[1] end,
      function() return s.reveal end, function() s.name = 1 end, function() s[1] = 1 end,
      function() return #s end, function() return s() end, function() return s + 1 end,
      function() return s < s end, function() return pairs(s)(s) end,
      function() return ("x"):rep(s) end, function() return table.concat { s } end,
      function() return ("a"):gsub("a", { a = s }) end, function() return tonumber(s) .. "" end,
    } do
      local ok, err = pcall(misuse)
      assert.is_false(ok)
      assert.is_nil(tostring(err):find("hunter2", 1, true))
    end
    assert.equal("secret", getmetatable(s))
    assert.has_error(function() setmetatable(s, {}) end)
    assert.has_error(function() s.name({}) end)
  end)

  it("is equal to itself alone", function()
    local a <close> = host.secret("x", "hunter2-hunter2")
    local b <close> = host.secret("x", "hunter2-hunter2")
    assert.is_true(a == a)
    assert.is_false(a == b)
    assert.is_true(host.secret_eq(a, b))
    assert.is_false(host.secret_eq(a, "hunter2-hunter3"))
  end)

  it("is masked from its making to its release", function()
    assert.equal("hunter2-hunter2", host.mask("hunter2-hunter2"))
    local s = host.secret("x", "hunter2-hunter2")
    assert.equal("[secret x]", host.mask("hunter2-hunter2"))
    release(s)
    assert.equal("hunter2-hunter2", host.mask("hunter2-hunter2"))
  end)

  it("is released when nobody holds it", function()
    local box = { host.secret("x", "hunter2-hunter2") }
    assert.equal("[secret x]", host.mask("hunter2-hunter2"))
    box[1] = nil
    assert.is_nil(box[1])
    collectgarbage()
    collectgarbage()
    assert.equal("hunter2-hunter2", host.mask("hunter2-hunter2"))
  end)

  it("raises when it is used after its release, which may come twice", function()
    local s = host.secret("x", "hunter2-hunter2")
    release(s)
    release(s)
    assert.equal("[secret x]", tostring(s))
    assert.has_error(function() host.reveal(s) end, "[secret x] was released")
  end)

  it("is refused when it is too short to be masked", function()
    assert.has_error(function() host.secret("x", "") end)
    assert.has_error(function() host.secret("x", "1234567") end,
      "secret x is too short: fewer than 8 bytes cannot be masked")
    assert.has_error(function() host.secret("x", "1234567\n") end)
    assert.has_error(function() host.secret("x", "1234567\r\n\n") end)
    release(host.secret("x", "12345678"))
    release(host.secret("x", "1234567\n8"))
  end)

  it("needs a name that can be printed", function()
    assert.has_error(function() host.secret("", "12345678") end)
    assert.has_error(function() host.secret("a\nb", "12345678") end)
    assert.has_error(function() host.secret("a\27[31m", "12345678") end)
    release(host.secret("Schlüssel für api.example.org:443/key", "12345678"))
  end)

  it("keeps any bytes", function()
    local bytes = {}
    for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
    bytes = table.concat(bytes)
    local s <close> = host.secret("bytes", bytes)
    assert.equal(bytes, host.reveal(s))
    assert.equal("[secret bytes]", host.mask(bytes))
  end)

  it("can be written to a command as it is", function()
    local s <close> = host.secret("x", "hunter2\0-hunter2")
    local p <close> = assert(process.spawn { "cat" })
    assert.is_true(p:write(s, 5))
    p:shut()
    assert.same({ "out", "hunter2\0-hunter2" }, { p:read(5) })
  end)

  it("is made of a name and bytes, nothing else", function()
    for _, wrong in ipairs { true, {}, print, io.stdout, coroutine.create(print) } do
      assert.has_error(function() host.secret(wrong, "12345678") end)
      assert.has_error(function() host.secret("x", wrong) end)
      assert.has_error(function() host.reveal(wrong) end)
      assert.has_error(function() host.secret_eq(wrong, "x") end)
    end
    assert.has_error(function() host.secret() end)
    assert.has_error(function() host.secret("x") end)
    assert.has_error(function() host.secret("x", 12345678) end)
    assert.has_error(function() host.reveal("12345678") end)
  end)
end)
