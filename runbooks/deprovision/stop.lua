-- stop.lua: the last time that lbrun is on a server that is given up: its containers stop and
-- its remote backups are purged. A child run of deprovision.lua, behind whose barrier it is.
-- With the configuration that backups are sent by, where the server has one.
local function command(ctx, words)
  local own = ctx.root:exists(remote.config) and { "--config", remote.config } or {}
  return { "rclone", table.unpack(table.move(words, 1, #words, #own + 1, own)) }
end

local function rclone(ctx, words)
  return ctx.root:try(command(ctx, words), { timeout = 3600 })
end

-- What lies below the tenant's own folder on the remote: "none", "there" or nil and why.
local function look(ctx, place)
  local result = rclone(ctx, { "lsf", "--max-depth", "1", place })
  if result.status == 3 then return "none" end -- the directory is not there
  if result.ok then return result.stdout == "" and "none" or "there" end
  return nil, last_lines(result.stderr, 1)
end

return runbook {
  name = "deprovision-stop", summary = "Stop a server that is given up", section = "8.1", sudo = true,
  params = {
    tenant = param.string {},
    backups = param.string { optional = true, description = "where rclone finds the tenant's own folder of backups" },
  },
  steps = function(p)
    local list = {
      step { name = "containers", title = "All containers stand still", class = "compensable",
        probe = function(ctx)
          local result = ctx.root:try("docker ps --format '{{.Names}}'")
          if not result.ok then
            if ctx.root:try("pgrep -x dockerd").ok then return unknown("docker: " .. last_lines(result.stderr, 1)) end
            return done("no Docker engine runs")
          end
          local names = result.stdout
          return names == "" and done() or pending("stop " .. names:gsub("\n$", ""):gsub("\n", ", "))
        end,
        apply = function(ctx)
          ctx.root:job("docker ps -q | xargs -r docker update --restart=no >/dev/null; docker ps -q | xargs -r docker stop",
            { name = "stop", timeout = "30m" })
        end },
    }
    if p.backups then
      local place = p.backups
      list[2] = step { name = "backups", title = "Remote backups of this tenant", class = "compensable",
        probe = function(ctx)
          local state, why = look(ctx, place)
          if not state then return unknown(("%s: %s"):format(place, why)) end
          return state == "none" and done() or pending("purge " .. place)
        end,
        apply = function(ctx) ctx.root:job(command(ctx, { "purge", place }), { name = "purge", timeout = "12h" }) end }
    end
    return list
  end,
}
