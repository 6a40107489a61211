-- 08-updates.lua: step 8: security updates install themselves, and nothing else does.
return function()
  return step {
    name = "updates", title = "Unattended security updates", class = "reversible", tags = { "updates" },
    resources = {
      apt.installed { "unattended-upgrades" },
      unattended.security {},
    },
  }
end
