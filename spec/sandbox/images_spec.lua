-- images_spec.lua: stand-in images, with Docker in the VPS from the start or later.
-- It says nothing about the real images.
local vps = require "support.vps"

describe("stand-in images #vps #slow", function()
  local ok, why = vps.available()
  local home

  if not ok then
    pending(why)
    return
  end

  setup(function()
    local pipe = io.popen("pwd; echo $$")
    home = ("%s/build/sandbox-images-%s"):format(pipe:read("l", "l"))
    pipe:close()
  end)

  teardown(function()
    vps.call({ "down", "--all" }, { home = home })
    os.execute("rm -rf '" .. home .. "'")
  end)

  for _, release in ipairs { "bookworm", "trixie" } do
    it("are there for a Docker that is installed later on " .. release, function()
      local v = vps.up(release, { home = home, release = release,
                                  images = { vps.nginx } })
      local _, status = v:exec "command -v docker"
      assert.equal(127, status)
      local _, failed, err = v:exec [[
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q update && apt-get -qy install docker.io docker-compose >/dev/null]]
      assert.equal(0, failed, err)
      assert.equal(vps.nginx .. "\n", (v:exec "docker images --format '{{.Repository}}:{{.Tag}}'"))
      assert.equal("overlay2\n", (v:exec "docker info --format '{{.Driver}}'"))
      v:exec("docker run -d --network host " .. vps.nginx .. " && sleep 1")
      assert.matches("Welcome to nginx", (v:exec "curl -s http://127.0.0.1/"))
      assert.equal("open", v:scan("80")[80])
      v:down()
    end)
  end

  it("are loaded into a VPS that has Docker, also on a disk of its own", function()
    local v = vps.up("disk", { home = home, docker = true, disk = "3G" })
    local _, status, err = vps.call({ "images", "disk", vps.nginx }, { home = home })
    assert.equal(0, status, err)
    assert.equal("", (v:exec("docker run --rm " .. vps.nginx .. " nginx -t")))
    _, status, err = vps.call({ "images", "disk", "nothing:1" }, { home = home })
    assert.equal(2, status)
    assert.matches("no stand%-in for the image nothing:1", err)
  end)
end)
