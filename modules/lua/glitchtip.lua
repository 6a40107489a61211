-- glitchtip.lua: the projects of GlitchTip on a tenant's server (section 6.3): one for each program
-- that reports its errors, and where each sends them. It puts that nowhere: a tool's .env has it
-- from the store.

local glitchtip = {}

local volume = "glitchtip-uploads"
local names = { ["secrets-proxy"] = "Safety Wrapper" }

-- glitchtip.programs(ids) -> list of { id, name }: the platform's parts, and those of these
-- tools whose data names a variable of Sentry
function glitchtip.programs(ids)
  local list = {}
  for _, id in ipairs { "openclaw", "secrets-proxy", table.unpack(catalog.sorted(ids)) } do
    if stack.reports(stack.get(id)) then list[#list + 1] = { id = id, name = names[id] or catalog.part(id).name } end
  end
  return list
end

local function address_of(program) return credentials.key(program.id, stack.dsn) end
local function key_of(program) return credentials.key(program.id, "SENTRY_KEY") end

-- The keys are ours: GlitchTip takes them, so that nothing secret comes back from it.
local function keys(ctx, programs)
  local all, made = ctx.secrets_of(credentials.path) or {}, false
  for _, program in ipairs(programs) do
    local key = key_of(program)
    if not all[key] then all[key], made = stack.mint({ kind = "token", bytes = 16 }, key), true end
  end
  if made then credentials.write(ctx, all) end
  return all
end

-- Where each program sends its errors: what an SDK of Sentry's calls a DSN.
local function addresses(ctx, self, all, ids)
  local changed = false
  for _, program in ipairs(self.programs) do
    local at = address_of(program)
    local value = template.render("https://{{ key }}@{{ host }}/{{ id }}", { key = all[key_of(program)], host = self.host,
      id = ids[program.id] }, { name = at })
    if not all[at] or not crypto.equal(all[at], value) then all[at], changed = value, true end
  end
  if changed then credentials.write(ctx, all) end
end

local function input(self)
  return crypto.sha256(json.encode({ tenant = self.tenant, host = self.host, programs = json.array(self.programs) }, { sort = true }))
end

local function names_of(self)
  local list = {}
  for i, program in ipairs(self.programs) do list[i] = program.name end
  return table.concat(list, ", ")
end

-- glitchtip.projects { tenant, host, email, programs, restore? }: GlitchTip, which runs, has
-- an admin with the password of the store, the tenant's organization and a project for each
-- of the programs, of which each took a test event; where they send is in the store.
-- With `restore`, addresses that are in the store already are those that the backup knows.
glitchtip.projects = resource("glitchtip.projects", {
  args = { tenant = "string", host = "string", email = "string", programs = "table", restore = "boolean?" },
  id = function(self) return self.host end,
  probe = function(self, ctx)
    -- Said in a warning; it is tried again by the next run, not by this one.
    if ctx.state_get "events of GlitchTip" == "failed" then return done() end
    local all, lacking = ctx.secrets_of(credentials.path) or {}, false
    for _, program in ipairs(self.programs) do lacking = lacking or not all[address_of(program)] end
    if not lacking and (self.restore or marks.same(ctx, volume, "projects", input(self))) then return done() end
    return pending("make projects in GlitchTip for " .. names_of(self))
  end,
  intent = function(self) return "make projects in GlitchTip for " .. names_of(self) end,
  apply = function(self, ctx)
    local all, programs = keys(ctx, self.programs), {}
    for i, program in ipairs(self.programs) do
      programs[i] = { id = program.id, name = program.name, key = all[key_of(program)], last = i == #self.programs }
    end
    local order = ctx.render("glitchtip/order.json", { tenant = self.tenant, email = self.email,
      password = all.GLITCHTIP_ADMIN_PASSWORD, programs = programs })
    local result = ctx.target:try { "docker", "exec", "-i", "-w", "/code", "glitchtip", "./manage.py", "shell", timeout = 300,
      stdin = ctx.render("glitchtip/projects.py", { order = crypto.base64(order) }) }
    local fine, answer = pcall(json.decode, result.stdout:match("lbrun:([^\n]*)") or "")
    if not result.ok or not fine or type(answer) ~= "table" then
      fail("command", "GlitchTip made no projects: " .. last_lines(result.stdout .. result.stderr, 3))
    end
    addresses(ctx, self, all, answer.ids)
    if #answer.silent == 0 then return marks.set(ctx, volume, "projects", input(self)) end
    ctx.state_set("events of GlitchTip", "failed")
    ctx.warn(("GlitchTip took no test event of %s; the next run tries again"):format(table.concat(answer.silent, ", ")))
  end,
})

return glitchtip
