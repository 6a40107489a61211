-- install_spec.lua: what `make install` puts below PREFIX works without the checkout.
local support = require "support.lbrun"

describe("make install #unit", function()
  local dir
  before_each(function() dir = support.temp() end)
  after_each(function() support.sh("rm -rf " .. dir) end)

  local function make(target)
    return support.sh(("make -s MODE=release %s DESTDIR=%s PREFIX=/usr"):format(target, dir))
  end

  it("gives a binary that finds its runbooks, library and templates, and uninstall takes all of it away", function()
    local out, status = make "install"
    assert.equal(0, status, out)
    out, status = support.sh(("cd / && HOME=%s %s/usr/bin/lbrun list && HOME=%s %s/usr/bin/lbrun describe provision.lua"):format(
      dir, dir, dir, dir))
    assert.equal(0, status, out)
    assert.is_truthy(out:find("provision.lua", 1, true))
    assert.is_truthy(out:find("admin_ssh_public_key", 1, true))
    out, status = make "uninstall"
    assert.equal(0, status, out)
    assert.equal("", (support.sh("find " .. dir .. " -type f")))
  end)

  it("leaves files that everybody may read and nobody but the owner may write", function()
    local out, status = make "install"
    assert.equal(0, status, out)
    assert.equal("", (support.sh("find " .. dir .. "/usr -type f ! -perm -0444 -o -type f -perm /0022")))
  end)
end)
