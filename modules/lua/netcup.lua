-- netcup.lua: servers, images, snapshots, reverse DNS and zones at netcup as a runbook wants
-- them: claimed, installed, named, taken once however often it was interrupted. Netcup sells
-- and cancels servers in its shop alone: what is bought waits in a pool, by its nickname.

local netcup = {}

-- A server whose nickname is this, or begins with it and '-', is free to be claimed.
netcup.free = "pool"

local cities = { eu = { "Nuremberg", "Nürnberg", "Karlsruhe" }, na = { "Manassas" } }

-- netcup.nickname(tenant) -> the nickname of a tenant's server
function netcup.nickname(tenant) return "tenant-" .. tenant end

local function is_free(nickname)
  return nickname == netcup.free or nickname:sub(1, #netcup.free + 1) == netcup.free .. "-"
end

-- netcup.find(nickname) -> its row, or nil; raises where two servers have it.
function netcup.find(nickname)
  local found
  for _, s in ipairs(scp.servers()) do
    if s.nickname == nickname then
      if found then
        fail("netcup", ("two servers have the nickname %s (%d and %d): give one of them another"):format(nickname, found.id, s.id))
      end
      found = s
    end
  end
  return found
end

-- netcup.address(server) -> its first IPv4 address, or nil
function netcup.address(server)
  local first = (server.ipv4Addresses or {})[1]
  return first and first.ip
end

-- netcup.facts(server) -> { cpus, memory, disk } in bytes, as catalog.shortfalls wants them
function netcup.facts(server)
  local live, disk = server.serverLiveInfo or {}, 0
  for _, d in ipairs(live.disks or {}) do disk = disk + (d.capacityInMiB or 0) * (1 << 20) end
  return { cpus = live.cpuCount, memory = (live.maxServerMemoryInMiB or 0) * (1 << 20), disk = disk }
end

-- netcup.stands_in(server, region) -> yes or no, and the city
function netcup.stands_in(server, region)
  local city = server.site and server.site.city or "an unknown place"
  for _, name in ipairs(cities[region]) do
    if city == name then return true, city end
  end
  return false, city
end

-- netcup.misfits(server, tier, region, needs?) -> texts that say why it is not one of these;
-- needs: facts of the server that it replaces
function netcup.misfits(server, tier, region, needs)
  local list, there, city = {}, netcup.stands_in(server, region)
  if not there then list[#list + 1] = ("it stands in %s, not in %s"):format(city, table.concat(cities[region], ", ")) end
  if server.disabled then list[#list + 1] = "it is disabled" end
  local facts = netcup.facts(server)
  for _, text in ipairs(catalog.shortfalls(tier, facts)) do list[#list + 1] = text end
  if needs and (facts.memory < needs.memory or facts.disk < needs.disk) then
    list[#list + 1] = "it is smaller than the one that was lost"
  end
  return list
end

-- netcup.wanted(tier, region) -> what has to be ordered when the pool has none
function netcup.wanted(tier, region)
  local t = catalog.tiers[tier]
  return ("order a server at netcup in %s with at least %d vCPU, %d GiB of memory and %.0f GB of disk (tier %s), "
    .. "and give it the nickname %s")
    :format(table.concat(cities[region], " or "), t.cpus, t.memory // (1 << 30), t.disk / 10 ^ 9, tier, netcup.free)
end

-- netcup.smallest(tier, region, needs?) -> the free server that is large enough with the least to
-- spare, or nil and texts about those that are free and are not
function netcup.smallest(tier, region, needs)
  local best, why = nil, {}
  for _, row in ipairs(scp.servers()) do
    if is_free(row.nickname or "") then
      local s = scp.server(row.id)
      local misfits = netcup.misfits(s, tier, region, needs)
      local size = netcup.facts(s).memory
      if #misfits > 0 then why[#why + 1] = ("%s: %s"):format(row.name, table.concat(misfits, "; "))
      elseif not best or size < best.size or size == best.size and s.id < best.server.id then best = { server = s, size = size } end
    end
  end
  return best and best.server, why
end

-- netcup.claim(ctx, { tenant, tier, region, server?, manual?, needs? }) -> the tenant's server, or nil
-- and a text. One claim at a time in a journal; what this run chose stands in its state before
-- netcup hears of it, so that an interrupted claim is found again. A server that had the
-- tenant's nickname before is in use: to adopt it would be to wipe it. With `manual` a person
-- gives the nickname, after this run has seen that no server has it.
function netcup.claim(ctx, given)
  return ctx.exclusive("netcup/pool", function()
    local nickname, ours = netcup.nickname(given.tenant), ctx.state_get "claiming"
    local mine = netcup.find(nickname)
    if mine and mine.id ~= ours then
      if not (given.manual and ctx.state_get "none had it") then
        fail("params", ("tenant %s has server %d already (nickname %s): what is on it would be wiped; nothing was changed")
          :format(given.tenant, mine.id, nickname))
      end
      ctx.state_set("claiming", mine.id)
    end
    if mine then return scp.server(mine.id) end
    if given.manual and not given.server then
      ctx.state_set("none had it", true)
      return nil
    end
    local chosen, why
    if given.server then
      chosen = scp.server(given.server)
      local misfits = is_free(chosen.nickname or "") and netcup.misfits(chosen, given.tier, given.region, given.needs)
        or { ("its nickname is '%s', not %s"):format(chosen.nickname or "", netcup.free) }
      if #misfits > 0 then return nil, ("server %d is not taken: %s"):format(given.server, table.concat(misfits, "; ")) end
    else
      chosen, why = netcup.smallest(given.tier, given.region, given.needs)
      if not chosen then
        local text = netcup.wanted(given.tier, given.region)
        return nil, #why > 0 and ("%s (free, but not fit: %s)"):format(text, table.concat(why, ", ")) or text
      end
    end
    ctx.state_set("claiming", chosen.id)
    netcup.rename(chosen.id, nickname)
    return scp.server(chosen.id)
  end)
end

-- netcup.step_aside(ctx, { tenant, region, other_region?, lost? }): the server that a tenant has
-- lost gives its nickname up, so that another can be claimed, which is to stand where it stood.
-- One that is not switched off is not lost, but where a person names it by its id (`lost`), as
-- when a data centre is out. -> the server, or nil: netcup has none by its nickname
function netcup.step_aside(ctx, given)
  local nickname, gone, lost = netcup.nickname(given.tenant), "lost-" .. given.tenant, ctx.state_get "lost"
  local function must_be_off(server)
    local state = (server.serverLiveInfo or {}).state or "in an unknown state"
    if state == "SHUTOFF" or given.lost == server.id then return end
    fail("params", ("server %d of %s is %s, so it is not lost: switch it off in netcup's control panel, then resume; where netcup "
      .. "cannot, say lost_server=%d; nothing was changed"):format(server.id, given.tenant, state, server.id))
  end
  if not lost then
    local row, earlier = netcup.find(nickname), netcup.find(gone)
    if row and earlier then
      fail("params", ("server %d has the nickname %s from an earlier loss: give it another, then resume; nothing was changed")
        :format(earlier.id, gone))
    end
    row = row or earlier
    if row then
      local server = scp.server(row.id)
      must_be_off(server)
      local there, city = netcup.stands_in(server, given.region)
      if not there and not given.other_region then
        fail("params", ("server %d, which is lost, stands in %s: region=%s is another; say other_region=true if that is meant; "
          .. "nothing was changed"):format(row.id, city, given.region))
      end
    end
    lost = { id = row and row.id or 0 }
    ctx.state_set("lost", lost)
  end
  if lost.id == 0 then return nil end
  local server = scp.server(lost.id)
  if server.nickname == nickname then
    must_be_off(server)
    netcup.rename(lost.id, gone)
  end
  return server
end

-- netcup.rename(id, nickname): done when netcup shows it.
function netcup.rename(id, nickname)
  local task = scp.set_nickname(id, nickname)
  if type(task) == "table" and task.uuid then scp.wait(task) end
  local now = scp.server(id).nickname
  if now ~= nickname then fail("netcup", ("server %d has the nickname '%s', not '%s'"):format(id, now or "", nickname)) end
end

-- netcup.once(ctx, { key, server, kind, start, timeout? }) -> the finished task. `start` is
-- called once: the task it began is known by the state, and where a kill came in between, as
-- the one task of this kind that the server did not have before. A task that failed is
-- forgotten, so that the next attempt begins another.
function netcup.once(ctx, given)
  local known = ctx.state_get(given.key)
  local function all()
    local list = {}
    for _, t in ipairs(scp.tasks { server = given.server }) do
      if t.name == given.kind then list[#list + 1] = t.uuid end
    end
    return list
  end
  if not known or not known.before then
    known = { before = {} }
    for _, uuid in ipairs(all()) do known.before[uuid] = true end
    known.before[""] = true -- an object also where there was none
    ctx.state_set(given.key, known)
  end
  local uuid = known.task
  if not uuid then
    for _, other in ipairs(all()) do
      if not known.before[other] then uuid = other end
    end
    uuid = uuid or given.start().uuid
    ctx.state_set(given.key, { before = known.before, task = uuid })
  end
  if not uuid then return nil end -- netcup had nothing to do
  local fine, result = pcall(scp.wait, uuid, { timeout = duration(given.timeout or "30m"),
    progress = function(_, percent) if percent then ctx.progress(percent, 100, "%") end end })
  if fine then return result end
  if type(result) == "table" and result.why == "task_failed" then ctx.state_set(given.key, { again = true }) end
  error(result, 0)
end

-- netcup.key(name, line) -> id of that public key in the account, which is given it if needed
function netcup.key(name, line)
  local kind, body = line:match("(%S+)%s+(%S+)")
  for _, k in ipairs(scp.ssh_keys()) do
    local k1, k2 = k.key:match("(%S+)%s+(%S+)")
    if k1 == kind and k2 == body then return k.id end
  end
  return scp.add_ssh_key(name, line).id
end

-- netcup.power(ctx, { key, server, on = boolean }): on, or shut down; by force when it does
-- not shut down by itself.
function netcup.power(ctx, given)
  local want = given.on and "RUNNING" or "SHUTOFF"
  local function state() return scp.server(given.server).serverLiveInfo.state end
  if state() == want then return end
  local task = scp.power(given.server, given.on and "on" or "off")
  if type(task) == "table" and task.uuid then pcall(scp.wait, task, { timeout = 300 }) end
  if state() ~= want and not given.on then
    ctx.log(("server %d does not shut down: it is switched off"):format(given.server))
    task = scp.power(given.server, "poweroff")
    if type(task) == "table" and task.uuid then scp.wait(task, { timeout = 300 }) end
  end
  local now = state()
  if now ~= want then fail("netcup", ("server %d is %s, not %s"):format(given.server, now, want)) end
end

local function has_snapshot(id, name)
  for _, s in ipairs(scp.snapshots(id)) do
    if s.name == name then return s end
  end
end
netcup.has_snapshot = has_snapshot

-- netcup.snapshot(ctx, { server, name, description?, off? }) -> the snapshot, or nil and why
-- netcup takes none. One with UEFI takes none while it runs: with `off` it is switched off
-- for it, and on again.
function netcup.snapshot(ctx, given)
  local id = given.server
  local old = has_snapshot(id, given.name)
  if old then return old end
  local fine, err = pcall(scp.snapshot_check, id, { online = true })
  local options = { name = given.name, description = given.description }
  if fine then options.online = true
  elseif type(err) == "table" and err.why == "refused" then
    if not given.off then return nil, err.message end
    netcup.power(ctx, { server = id, on = false })
    options.disk = scp.server(id).serverLiveInfo.disks[1].dev
  else error(err, 0) end
  netcup.once(ctx, { key = "snapshot " .. given.name, server = id, kind = "ServerSnapshotCreateTask",
    start = function() return scp.snapshot_create(id, options) end })
  if given.off then netcup.power(ctx, { server = id, on = true }) end
  return has_snapshot(id, given.name)
end

-- netcup.zone_of(domain) -> the zone at netcup that holds it, or nil
function netcup.zone_of(domain)
  local name = domain
  while name:find(".", 1, true) do
    local fine, err = pcall(scp.zone, name)
    if fine then return name end
    -- CCP says that a zone is not there, or not ours, in more than one way (4013, 5029).
    if type(err) ~= "table" or err.why ~= "not_found" and err.why ~= "invalid" then error(err, 0) end
    name = name:gsub("^[^.]+%.", "")
  end
end

local function same(a, b) return a:lower():gsub("%.$", "") == b:lower():gsub("%.$", "") end

-- netcup.host_in(zone, name) -> the host name of a record: "@" is the zone itself
function netcup.host_in(zone, name)
  return name == zone and "@" or name:sub(1, #name - #zone - 1)
end

-- netcup.record_changes(zone, names, address) -> what makes each name lead to this address
-- and to no other: records to add, to change and to remove
function netcup.record_changes(zone, names, address)
  local have, list = scp.dns_records(zone), {}
  for _, name in ipairs(names) do
    local host, found = netcup.host_in(zone, name), false
    for _, r in ipairs(have) do
      if same(r.hostname, host) and (r.type == "A" or r.type == "AAAA" or r.type == "CNAME") then
        if r.type == "A" and r.destination == address and not found then found = true
        else list[#list + 1] = { id = r.id, hostname = r.hostname, type = r.type, priority = r.priority,
          destination = r.destination, delete = true } end
      end
    end
    if not found then list[#list + 1] = { hostname = host, type = "A", destination = address } end
  end
  return list
end

-- netcup.text_of(changes) -> a line each
function netcup.text_of(changes)
  local lines = {}
  for _, r in ipairs(changes) do
    lines[#lines + 1] = ("%s %s %s %s"):format(r.delete and "-" or "+", r.hostname, r.type, r.destination)
  end
  return table.concat(lines, "\n")
end

-- netcup.within(address, prefix): as netcup writes them, "2001:db8:c1:5e9e::" and what is in it
function netcup.within(address, prefix)
  local stem = prefix:gsub("::$", ":")
  return address:sub(1, #stem) == stem
end

-- netcup.leading_to(zone, server) -> the records of the zone that lead to its addresses
function netcup.leading_to(zone, server)
  local list = {}
  for _, r in ipairs(scp.dns_records(zone)) do
    local its = false
    for _, a in ipairs(server.ipv4Addresses or {}) do its = its or r.type == "A" and r.destination == a.ip end
    for _, a in ipairs(server.ipv6Addresses or {}) do
      its = its or r.type == "AAAA" and netcup.within(r.destination, a.networkPrefix)
    end
    if its then
      list[#list + 1] = { id = r.id, hostname = r.hostname, type = r.type, priority = r.priority,
        destination = r.destination, delete = true }
    end
  end
  return list
end

-- netcup.reverse { address, name }: the address is named so. It is done in an apply's child
-- of a step: server and name may be functions of ctx.
netcup.reverse = resource("netcup.reverse", {
  args = { address = "string|function", name = "string|function" },
  id = function(self) return type(self.name) == "string" and self.name or "name" end,
  probe = function(self, ctx)
    local address, name = netcup.value(self.address, ctx), netcup.value(self.name, ctx)
    local now = scp.rdns(address).name
    return now and same(now, name) and done() or pending(("%s: %s -> %s"):format(address, now or "no name", name))
  end,
  before = function(self, ctx) return { name = scp.rdns(netcup.value(self.address, ctx)).name } end,
  apply = function(self, ctx) scp.set_rdns(netcup.value(self.address, ctx), netcup.value(self.name, ctx)) end,
  undo = function(self, ctx, old)
    local address = netcup.value(self.address, ctx)
    if old.name then scp.set_rdns(address, old.name) else scp.delete_rdns(address) end
  end,
})

-- netcup.records { zone, names, address }: each name leads there. Any may be a function of ctx.
netcup.records = resource("netcup.records", {
  args = { zone = "string|function", names = "table|function", address = "string|function" },
  id = function(self) return type(self.zone) == "string" and self.zone or "zone" end,
  probe = function(self, ctx)
    local zone = netcup.value(self.zone, ctx)
    if not zone then return done("netcup does not hold the zone") end
    local list = netcup.record_changes(zone, netcup.value(self.names, ctx), netcup.value(self.address, ctx))
    return #list == 0 and done() or pending(netcup.text_of(list))
  end,
  apply = function(self, ctx)
    local zone = netcup.value(self.zone, ctx)
    scp.dns_update(zone, netcup.record_changes(zone, netcup.value(self.names, ctx), netcup.value(self.address, ctx)))
  end,
})

-- netcup.value(given, ctx) -> itself, or what it gives for this ctx
function netcup.value(given, ctx)
  if type(given) == "function" then return given(ctx) end
  return given
end

return netcup
