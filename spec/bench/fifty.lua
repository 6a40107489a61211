-- fifty.lua: the runbook that `make bench` measures the engine with: many steps of one
-- short command each. It changes nothing.
return runbook {
  name = "fifty", summary = "Short commands, for make bench",
  params = {
    mode = param.enum { "apply", "probe", "raw", description = "effects, steps that are done already, or bare commands" },
    count = param.integer { min = 1, default = 50 },
  },
  steps = function(p)
    local function command(ctx) ctx.target:run("true") end
    if p.mode == "raw" then
      return { step { name = "raw", class = "pure", apply = command, probe = function(ctx)
        for _ = 1, p.count do command(ctx) end
        return done()
      end } }
    end
    local list = {}
    for i = 1, p.count do
      list[i] = step { name = ("command-%03d"):format(i), class = "pure", apply = command,
        probe = p.mode == "probe" and function(ctx)
          command(ctx)
          return done()
        end or nil }
    end
    return list
  end,
}
