-- ready.lua: the first contact with a server of an order, which pins its identity, and what
-- the check of its names needs there. A child run of fulfil.lua.
return runbook {
  name = "fulfil-ready", summary = "First contact with an order's server", section = "3.1", sudo = true,
  params = { tenant = param.string {} },
  steps = {
    step { name = "tools", title = "dig", class = "compensable",
      probe = function(ctx) return ctx.target:try("command -v dig").ok and done() or pending "install bind9-dnsutils" end,
      apply = function(ctx)
        ctx.target:job("export DEBIAN_FRONTEND=noninteractive; apt-get -q update && "
          .. "apt-get -q -y install --no-install-recommends bind9-dnsutils", { name = "dig", timeout = "15m" })
      end },
  },
}
