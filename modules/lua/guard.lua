-- guard.lua: changes that could lock everybody out are made under a guard: a unit on the
-- server puts the old SSH and firewall state back unless the change is confirmed over a
-- new connection in time. It makes no change of its own.

local guard = {}

local dir = "/var/lib/lbrun/guard"

local function need_name(name)
  if type(name) ~= "string" or not name:match("^[a-z0-9-]+$") then
    error("a guard's name is of lower-case letters, digits and '-'", 3)
  end
end

-- Shell text that prints "guard=STATE" for a probe's own round trip.
function guard.state_script(name)
  need_name(name)
  local d = dir .. "/" .. name
  return ("if [ -d %s/armed ]; then echo guard=armed; elif [ -d %s/fired ]; then echo guard=fired; else echo guard=none; fi\n")
    :format(d, d)
end

-- guard.state(ctx, name) -> "none", "armed", "confirmed" or "fired"
function guard.state(ctx, name)
  need_name(name)
  local d = dir .. "/" .. name
  return ctx.root:run(("for s in armed confirmed fired; do [ ! -d %s/$s ] || { echo $s; exit 0; }; done; echo none")
    :format(d)).stdout:match("%a+")
end

local function install(ctx, seconds)
  local files = {
    { dir .. "/guard.sh", ctx.source("guard/guard.sh"), "0700" },
    { "/etc/systemd/system/lbrun-guard.service", ctx.source("systemd/lbrun-guard.service"), "0644" },
    { "/etc/systemd/system/lbrun-guard.timer", ctx.render("systemd/lbrun-guard.timer", { seconds = seconds }), "0644" },
  }
  ctx.root:run(("umask 077; mkdir -p %s && chmod 700 /var/lib/lbrun %s"):format(dir, dir))
  local states = file.snapshot(ctx.root, { files[1][1], files[2][1], files[3][1] })
  for i, f in ipairs(files) do
    if states[i].content ~= f[2] or states[i].mode ~= f[3] then
      ctx.root:put(f[1], f[2], { mode = f[3], owner = "root", group = "root" })
    end
  end
end

-- The address we come from is not to be banned while we prove a new path: `words` are
-- fail2ban's for its jail. One client for all of them, for each is a start of Python. With
-- `later` it is not waited for; the lock keeps one after the other.
local function ban(t, address, words, later)
  if not address or not address:match("^[%x.:]+$") then return end
  local lines = {}
  for _, word in ipairs(words) do lines[#lines + 1] = ("set sshd %s %s"):format(word, address) end
  t:try(([[
[ -S /run/fail2ban/fail2ban.sock ] || exit 0
( exec 8>/run/lbrun-fail2ban.lock && flock -w 30 8 || exit
  printf '%%s\n' %s exit | timeout 10 setsid fail2ban-client -i >/dev/null 2>&1 %s )]]):format(
    argv(lines), later and "&" or ""))
end

-- guard.arm(ctx, { name, seconds = 90, saves = { "sshd", "ufw" }, restore = shell text? })
--   -> "armed", or "armed again" when an interrupted attempt had left it armed: then what
--   was saved first is kept and only the time starts anew.
function guard.arm(ctx, options)
  need_name(options.name)
  install(ctx, options.seconds or 90)
  local saves = {}
  for _, what in ipairs(options.saves or {}) do saves[#saves + 1] = what end
  if options.restore then
    ctx.root:put(dir .. "/restore." .. options.name, options.restore, { mode = "0600", owner = "root", group = "root" })
    saves[#saves + 1] = "script"
  end
  if #saves == 0 then error("a guard saves something: sshd, ufw, or a restore script", 2) end
  local answer
  parallel {
    function()
      answer = ctx.root:run(("sh %s/guard.sh arm %s %s"):format(dir, options.name, argv(saves)), { timeout = 100 }).stdout:gsub("\n", "")
    end,
    function() ban(ctx.root, ctx.controller, { "addignoreip", "unbanip" }) end,
  }
  ctx.log(("guard %s: %s for %d s"):format(options.name, answer, options.seconds or 90))
  return answer
end

-- guard.confirm(ctx, view, name): the change stays. view is one of ctx.reconnect, opened
-- after the change. Raises `guard` when the guard had fired before.
function guard.confirm(ctx, view, name)
  need_name(name)
  if ctx.target.url ~= "local:" and (rawequal(view, ctx.root) or rawequal(view, ctx.target) or rawequal(view, ctx.login)) then
    error("a guard is confirmed over a new connection (ctx.reconnect), not over the run's own", 2)
  end
  local root = view:sudo()
  local result = root:try(("sh %s/guard.sh confirm %s"):format(dir, name), { timeout = 100 })
  if not result.ok then
    fail("guard", ("guard %s cannot be confirmed, it is %s: the old state was put back"):format(name,
      result.stdout:match("%a+") or last_lines(result.stderr, 1)))
  end
  ban(root, ctx.controller, { "delignoreip" }, true)
  ctx.log(("guard %s: confirmed over a new connection to %s"):format(name, view.url))
end

-- guard.fire(ctx, name): put the old state back now.
function guard.fire(ctx, name)
  need_name(name)
  ctx.root:run(("sh %s/guard.sh fire %s"):format(dir, name), { timeout = 300 })
end

-- guard.clear(ctx, name): forget a guard that was confirmed or has fired.
function guard.clear(ctx, name)
  need_name(name)
  ctx.root:run(("[ ! -e %s/%s ] || sh %s/guard.sh clear %s"):format(dir, name, dir, name), { timeout = 100 })
end

-- ufw's `limit` refuses who has come six times in 30 s, and counts the refused ones.
local outlast_limit = "grep -q '^### tuple ### limit ' /etc/ufw/user.rules && sleep 31"

-- guard.prove(ctx, path, { user_sudo, tries }) -> view. A new connection by `path`
-- ("user@:port", or nil for the way the run is connected now), on which root is reached.
function guard.prove(ctx, path, options)
  options = options or {}
  if ctx.target.url == "local:" then return ctx.root end
  local last
  local tries = options.tries or 4
  for i = 1, tries + 1 do
    local fine, view = pcall(ctx.reconnect, path or ctx.target.url)
    if fine then
      local asked, result = pcall(function() return view:sudo():try("id -u", { timeout = 15 }) end)
      if asked and result.ok and result.stdout == "0\n" then return view end
      last = asked and ("root is not reached: " .. last_lines(result.stderr, 1)) or tostring(result)
      -- A login that may not use sudo will not be let do so by asking again.
      break
    end
    last = view
    local code = type(view) == "table" and view.code
    if code == "interrupted" or code == "hostkey" or code == "identity" then error(view, 0) end
    if i > tries or not ctx.root:try(i < tries and "sleep 1" or outlast_limit).ok then break end
  end
  fail("guard", ("the new path %s was not proved: %s"):format(path or ctx.target.url, tostring(last)))
end

-- guard.protect(ctx, { name, saves, seconds?, change, path?, prove? }): arm, change, prove
-- over a new connection, confirm. When the change or its proof fails the old state is put
-- back at once; when the connection is cut, or lbrun dies, the server does it by itself.
function guard.protect(ctx, options)
  local name = options.name
  if guard.state(ctx, name) == "fired" then
    ctx.warn(("guard %s had fired: a change was not confirmed in time and the server had put the old state back; "
      .. "the change is made again"):format(name))
    guard.clear(ctx, name)
  end
  guard.arm(ctx, options)
  local view
  local fine, err = pcall(function()
    options.change()
    view = guard.prove(ctx, options.path)
    if options.prove then options.prove(view) end
    guard.confirm(ctx, view, name)
  end)
  if not fine then
    local code = type(err) == "table" and err.code
    if code == "lost" or code == "interrupted" or code == "detached" then error(err, 0) end
    local fired = pcall(guard.fire, ctx, name)
    local message = type(err) == "table" and err.message or tostring(err)
    fail(code == "guard" and "guard" or code or "guard", ("%s; %s"):format(message, fired
      and "the guard has put the old SSH and firewall state back"
      or "the guard puts the old SSH and firewall state back when its time is over"))
  end
  if options.path and ctx.target.url ~= "local:" then ctx.switch(options.path) end
end

return guard
