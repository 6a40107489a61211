-- 00-config.lua: before anything that can fail: the file of initial passwords is imported and wiped.
-- It needs root and no package.
return function(p)
  return step {
    name = "config", title = "Initial passwords", class = "compensable", tags = { "platform" },
    resources = { config_json.imported { path = p.config_json } },
  }
end
