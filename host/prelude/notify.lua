-- notify.lua: the command of --on-failure, which tells a person. What has failed it finds in
-- LBRUN_EXIT and LBRUN_RUN.
local host = require "host"

local notify = {}

-- notify.failure(options, exit, run): a run that waits until it is due has not failed.
function notify.failure(options, exit, id)
  if not options.on_failure or exit == 0 or exit == 3 or exit == 10 then return end
  local process = require "process"
  local stream = process.spawn({ "/bin/sh", "-c", options.on_failure },
    { env = { LBRUN_EXIT = tostring(exit), LBRUN_RUN = id or "" } })
  if not stream then return end
  stream:shut()
  local stop = host.monotonic() + 60
  repeat
    local kind, data = stream:read(math.max(0.001, stop - host.monotonic()))
    if data and kind then host.write("err", data) end
  until not kind or kind == "eof"
  stream:close()
end

return notify
