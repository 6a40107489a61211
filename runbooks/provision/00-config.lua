-- 00-config.lua: before anything that can fail: the file of initial passwords is imported and wiped;
-- a restore takes the credentials from their sealed copy. It needs root and no package.
return function(p)
  local resources = { config_json.imported { path = p.config_json } }
  if p.restore then
    table.insert(resources, 1, sealed.opened { path = p.sealed_copy, key = "recovery_key" })
  end
  return step {
    name = "config", title = "Initial passwords", class = "compensable", tags = { "platform" }, resources = resources,
  }
end
