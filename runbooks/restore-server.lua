-- restore-server.lua: a bare new server becomes the tenant's from the remote copy, with the recovery
-- key alone (section 5.2): the credentials out of their sealed copy, provisioning with empty
-- stacks, the data of every tool, provisioning again, which must find nothing amiss. It
-- orders no server and changes no name in the DNS.
local whole = include("restore-server/whole") { include("provision/server"), include("provision/params") }

return runbook {
  name = "restore-server", summary = "Make a bare server the tenant's again, from the remote copy", section = "5.2", sudo = true,
  params = whole.params(),
  access = function(p) return { ("%s@:%d"):format(p.admin_user, p.ssh_port) } end,
  preflight = function(ctx)
    whole.preflight(ctx)
    hub.check(ctx)
  end,
  steps = function(p)
    local list = whole.steps(p, {})
    list[#list + 1] = step { name = "times", title = "How long it took", class = "pure", rerun = true, apply = function(ctx)
      ctx.log(("%d minutes; the data is of %s. Left to a person: the names in the DNS, if the address is another"):format(
        (ctx.now() - ctx.state_get("began")) // 60, ctx.state_get("made")))
    end }
    if p.hub_url then
      list[#list + 1] = step { name = "hub", title = "The Hub's record of the server", class = "pure", resources = {
        hub.reported { call = "connection", fields = function(ctx)
          return { host = ctx.target.url:match("@?%[?([%w.:-]-)%]?:%d+$") or ctx.facts.hostname, port = p.ssh_port, user = p.admin_user }
        end } } }
    end
    return list
  end,
}
