-- s3.lua: starts s3rver, an S3 server, for a spec; its bucket is `backups`. It asserts
-- nothing but that the server comes up.
local process = require "process"
local support = require "support.lbrun"

local s3 = {}

s3.program = "build/peers/node_modules/.bin/s3rver"

-- s3.new(dir, address?) -> s: s.start(), s.stop(), s.config (an rclone configuration's text)
function s3.new(dir, address)
  local s = { dir = dir, address = address or "127.0.0.1" }
  support.sh("mkdir -p " .. support.quote(dir))

  -- The port stays the same from the first start on.
  function s.start()
    local port = s.port or support.sh [[python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])']]:match "%d+"
    s.server = assert(process.spawn({ s3.program, "-d", dir, "-a", s.address, "-p", port, "--configure-bucket", "backups" },
      { kill_on_close = true }))
    local out = ""
    while not out:find "listening on" do
      local which, data = s.server:read(60)
      assert(which == "out" or which == "err", ("s3rver does not start: %s"):format(tostring(data)))
      out = out .. data
    end
    s.port = port
    s.config = ("[remote]\ntype = s3\nprovider = Other\nendpoint = http://%s:%s\naccess_key_id = S3RVER\nsecret_access_key = S3RVER\nforce_path_style = true\n")
      :format(s.address, port)
    return s
  end

  function s.stop()
    if s.server then s.server:close() end
    s.server = nil
  end
  return s
end

return s3
