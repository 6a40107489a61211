-- names.lua: do the authoritative servers and the resolvers lead every name to the server? A
-- child run of fulfil.lua, which asks again later; it waits for nothing itself.
return runbook {
  name = "fulfil-names", summary = "Whether an order's names lead to its server", section = "3.1", sudo = true,
  params = {
    tenant = param.string {}, domain = param.string {}, address = param.string {},
    names = param.list { of = param.string {}, min = 1 }, resolvers = param.list { of = param.string {}, min = 1 },
  },
  steps = {
    step { name = "names", title = "Names lead here", class = "pure", apply = function(ctx)
      local p = ctx.params
      local left = dns.unready(ctx.target, { domain = p.domain, names = p.names, address = p.address, resolvers = p.resolvers })
      if #left > 0 then fail("dns", ("%d answer%s not %s yet: %s"):format(#left, #left == 1 and " is" or "s are", p.address,
        table.concat(left, "; ", 1, math.min(4, #left)))) end
    end },
  },
}
