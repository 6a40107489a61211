-- certificate.lua: which certificate nginx shows for a name: a CA's where there is one that
-- covers it, else our own; how a CA's is got and renewed, by certbot. It writes no site.

local certificate = {}

-- As nginx sees it in its container, where this folder is /etc/nginx/lbrun.
certificate.path = nginx.dir .. "/conf/fallback.pem"
local inside = "/etc/nginx/lbrun/fallback.pem"
local mark = nginx.dir .. "/.loaded/fallback.pem"
local margin = 30 * 86400

local hook = "/etc/letsencrypt/renewal-hooks/deploy/lbrun-nginx"
local drop_in = "/etc/systemd/system/certbot.service.d/lbrun.conf"

-- certificate.covers(names, name): one of the certificate's names is this one, or its wildcard.
function certificate.covers(names, name)
  for _, have in ipairs(names) do
    if have == name or have:sub(1, 2) == "*." and have:sub(2) == name:match("^[^.]+(%..+)$") then return true end
  end
  return false
end
local covers = certificate.covers

-- A file's first certificate, without what else is in it.
local function read(t, path)
  local text = t:run(("[ ! -e %s ] || sed -n '/BEGIN CERT/,/END CERT/p;/END CERT/q' %s"):format(quote(path), quote(path))).stdout
  return text ~= "" and text or nil
end

-- certificate.serving(ctx, domain, name) -> { certificate, key, trusted }: the files for
-- nginx, by its own paths.
function certificate.serving(ctx, domain, name)
  local live = "/etc/letsencrypt/live/" .. domain
  local pem = read(ctx.target, live .. "/fullchain.pem")
  local fine, seen = pcall(crypto.certificate, pem or "")
  if fine and seen.not_after > (ctx.facts.clock or 0) and covers(seen.names, name) then
    -- Browsers know no issuer of a staging directory either.
    local trusted = not seen.self_signed and not seen.issuer:find("(STAGING)", 1, true)
    return { certificate = live .. "/fullchain.pem", key = live .. "/privkey.pem", trusted = trusted }
  end
  return { certificate = inside, key = inside, trusted = false }
end

-- certificate.self_signed { names }: the fallback covers these names and is good for
-- another month, and nginx has read it. Certificate and key are one file, so they match.
certificate.self_signed = resource("certificate.self_signed", {
  args = { names = "table" },
  id = function() return "fallback" end,
  probe = function(self, ctx)
    local pem = read(ctx.target, certificate.path)
    if not pem then return pending("make a certificate of our own for " .. table.concat(self.names, ", ")) end
    local fine, seen = pcall(crypto.certificate, pem)
    if not fine then return pending(certificate.path .. " holds no certificate") end
    for _, name in ipairs(self.names) do
      if not covers(seen.names, name) then return pending("the certificate of our own lacks " .. name) end
    end
    for _, name in ipairs(seen.names) do
      if not covers(self.names, name) then return pending("the certificate of our own still names " .. name) end
    end
    if seen.not_after < (ctx.facts.clock or 0) + margin then return pending "the certificate of our own ends within 30 days" end
    local states = file.snapshot(ctx.target, { { certificate.path, sum = true }, mark })
    local changes = file.attribute_changes(states[1], { mode = "0600", owner = "root", group = "root" })
    if #changes > 0 then return pending(certificate.path .. ": " .. table.concat(changes, ", ")) end
    if states[2].content ~= crypto.sha256(pem) .. "\n" then return pending "nginx has not read the certificate of our own" end
    return done()
  end,
  apply = function(self, ctx)
    local made = crypto.self_signed { names = self.names, days = 3650, name = "fallback.key" }
    ctx.target:put(certificate.path, template.render("{{ cert }}{{ key }}", made, { name = "fallback.pem" }),
      { mode = "0600", owner = "root", group = "root" })
    local result = nginx.reload(ctx)
    if not result.ok then fail("nginx", "nginx does not reload: " .. last_lines(result.stdout .. result.stderr, 3)) end
    ctx.target:run(("umask 022; mkdir -p %s/.loaded && echo %s >%s"):format(nginx.dir,
      crypto.sha256(read(ctx.target, certificate.path)), mark))
  end,
})

-- certificate.days(cert, clock) -> whole days until it ends, negative when it has ended
function certificate.days(cert, clock)
  return (cert.not_after - clock) // 86400
end

-- certificate.due(cert, clock): certbot should have renewed it by now: it does so 30 days
-- before the end; of a short life in the last third.
function certificate.due(cert, clock)
  return cert.not_after - clock < math.min(29 * 86400, (cert.not_after - cert.not_before) // 3)
end

-- certificate.late(cert, clock): so near its end that somebody has to look: 14 days, or a
-- quarter of a short life.
function certificate.late(cert, clock)
  return cert.not_after - clock < math.min(14 * 86400, (cert.not_after - cert.not_before) // 4)
end

-- certificate.lineage(t, domain) -> what certbot has for it, nil when there is nothing: what
-- crypto.certificate tells, with `server` (the directory it came from) and `loaded` (nginx
-- has read it).
function certificate.lineage(t, domain)
  local pem = read(t, ("/etc/letsencrypt/live/%s/fullchain.pem"):format(domain))
  local fine, seen = pcall(crypto.certificate, pem or "")
  if not fine then return nil end
  local states = file.snapshot(t, { ("/etc/letsencrypt/renewal/%s.conf"):format(domain),
    ("%s/.loaded/%s.fullchain"):format(nginx.dir, domain) })
  seen.server = (states[1].content or ""):match("\n%s*server%s*=%s*(%S+)")
  seen.loaded = states[2].content == crypto.sha256(pem) .. "\n"
  return seen
end

-- certificate.reasons(have, want, clock) -> why one has to be ordered, nil when none has.
-- want = { names, directory, all? }: `all` are those of the tenant, had now or not. What is
-- none of them any more has lost its DNS, or will, and would stop every renewal.
function certificate.reasons(have, want, clock)
  if not have then return "there is none" end
  local list, lacking = {}, {}
  for _, name in ipairs(want.names) do
    if not covers(have.names, name) then lacking[#lacking + 1] = name end
  end
  if #lacking > 0 then list[#list + 1] = "it lacks " .. table.concat(lacking, ", ") end
  local needed, gone = {}, {}
  for _, name in ipairs(want.all or have.names) do needed[name] = true end
  for _, name in ipairs(have.names) do
    if not needed[name] then gone[#gone + 1] = name end
  end
  if #gone > 0 then list[#list + 1] = "it still names " .. table.concat(gone, ", ") end
  if have.server ~= want.directory then
    list[#list + 1] = have.server and "it came from " .. have.server or "certbot does not know how to renew it"
  end
  if certificate.due(have, clock) then
    local days = certificate.days(have, clock)
    list[#list + 1] = days < 0 and "it has ended" or ("it ends in %d days"):format(days)
  end
  return #list > 0 and table.concat(list, ", ") or nil
end

-- certificate.complaint(text) -> certbot's reasons in one line
function certificate.complaint(text)
  local list = {}
  for domain, detail in text:gmatch("Domain:%s*(%S+)\n%s*Type:[^\n]*\n%s*Detail:%s*([^\n]*)") do
    list[#list + 1] = ("%s: %s"):format(domain, detail)
  end
  if #list > 0 then return table.concat(list, "; ") end
  for line in text:gmatch("[^\n]+") do
    local noise = line:find("^Ask for help") or line:find("^Saving debug log") or line:find("^%s*$") or line:find("^%- %- ")
      or line:find("^Requesting a cert") or line:find("^Renewing an ex") or line:find("^Account registered")
      or line:find("^Processing /") or line:find("^Exiting due to user request") or line:find("^An unexpected error")
    if not noise then list[#list + 1] = line end
  end
  return #list > 0 and last_lines(table.concat(list, "\n"), 2):gsub("%s*\n%s*", ": ") or "certbot says nothing"
end

-- certificate.certbot(ctx, words, ca) -> fine, output. It waits for a certbot that is already
-- at work, tries once more when the CA was out for a moment, and ends in any case: what
-- is wrong with a name or with trust is not mended by asking again, and CAs count failures.
-- `ca`: roots for the directory's own TLS.
function certificate.certbot(ctx, words, ca)
  local result = ctx.target:job(([[
command -v certbot >/dev/null || { echo "certbot is not installed"; exit 1; }
tried=
for i in 1 2 3 4 5 6 7; do
  out=$(timeout -k 10 900 certbot %s </dev/null 2>&1); s=$?
  case $s-$out in
  0-*) break ;;
  *"Another instance of Certbot"*) sleep 10 ;;
  *"failed to authenticate"* | *"challenges have failed"* | *"ertificate verify failed"*) break ;;
  *":serverInternal "* | *":badNonce "* | *"Service busy"* | *"onnection refused"* | *"onnection reset"* | *"onnection aborted"* | \
  *"timed out"* | *"Max retries exceeded"* | *"No route to host"* | *"name resolution"*)
    [ -z "$tried" ] || break
    tried=1
    sleep 20 ;;
  *) break ;;
  esac
done
[ $s -lt 124 ] || out="$out
certbot was stopped after 15 minutes"
printf '%%s\n' "$out"; [ $s = 0 ] ]]):format(argv(words)), { name = "certbot", timeout = "20m", ok = { 0, 1 },
      env = ca and { REQUESTS_CA_BUNDLE = ca } or nil })
  return result.status == 0, result.stdout .. result.stderr
end

-- certificate.read_by_nginx(ctx, domain): nginx tests and reads what certbot has for the domain.
function certificate.read_by_nginx(ctx, domain)
  local result = ctx.target:try { "env", "RENEWED_LINEAGE=/etc/letsencrypt/live/" .. domain, hook }
  if not result.ok then
    fail("nginx", "nginx does not take the new certificate, the old one stays in force: " ..
      last_lines(result.stdout .. result.stderr, 3))
  end
end

-- certificate.lineages(t) -> the domains that certbot has a certificate for
function certificate.lineages(t)
  local list = {}
  local out = t:run([[cd /etc/letsencrypt/live 2>/dev/null || exit 0
for d in */; do [ -e "${d}fullchain.pem" ] && echo "$d"; done; true]]).stdout
  for domain in out:gmatch("([^\n]+)/\n") do list[#list + 1] = domain end
  return list
end

-- certificate.ca(t) -> the file of roots that certbot.service is given, or nil
function certificate.ca(t)
  return t:run("systemctl show -p Environment --value certbot.service").stdout:match("REQUESTS_CA_BUNDLE=(%S+)")
end

-- certificate.shown(t) -> { { name, cert } }: what nginx shows for each name it has a site for;
-- without cert where it shows nothing.
function certificate.shown(t)
  local out = t:run(([[
for n in $(sed -n 's/^ *server_name \(.*\);$/\1/p' %s/sites/*.conf 2>/dev/null | tr -d '"' | tr ' ' '\n' | grep -vx _ | sort -u); do
  echo "=== $n"
  timeout 10 openssl s_client -connect 127.0.0.1:443 -servername "$n" </dev/null 2>/dev/null |
    sed -n '/BEGIN CERT/,/END CERT/p;/END CERT/q'
done; true]]):format(nginx.dir), { timeout = 400 }).stdout
  local list = {}
  for name, pem in ("\n" .. out):gsub("\n=== ", "\0"):gmatch("%z([^\n%z]*)\n?([^%z]*)") do
    local fine, seen = pcall(crypto.certificate, pem)
    list[#list + 1] = { name = name, cert = fine and seen or nil }
  end
  return list
end

local dns_hook = "/opt/letsbe/acme/dns-hook"

-- Which names can be had now. What cannot is said in a warning, each time.
local function names_to_order(self, ctx)
  if self.method == "dns-01" then
    local path = self.hook or dns_hook
    if ctx.target:try({ "test", "-x", path }).ok then return { self.domain, "*." .. self.domain } end
    ctx.warn(("no certificate of a CA for %s: dns-01 needs the program %s on the server, which sets the TXT record; "
      .. "the certificate of our own stays"):format(self.domain, path))
    return {}
  end
  local here, left = dns.split(ctx.target, { zone = self.domain, names = self.names, addresses = self.addresses })
  local texts = {}
  for i, item in ipairs(left) do texts[i] = ("%s: %s"):format(item.name, item.why) end
  if #here == 0 then
    ctx.warn(("no certificate of a CA for %s, the certificate of our own stays: %s; a later run orders it when DNS is right")
      :format(self.domain, table.concat(texts, "; ")))
  elseif #left > 0 then
    ctx.warn(("left out of the certificate of %s until DNS is right, then added by a later run: %s"):format(self.domain,
      table.concat(texts, "; ")))
  end
  return here
end

-- For dns-01 the names are always these two.
local function wanted(self, names)
  return { names = names, directory = self.directory, all = self.method == "dns-01" and names or self.names }
end

-- The options of certbot for one order.
local function order(self, names)
  local words = { "certonly", "--non-interactive", "--agree-tos", "-m", self.email or "ssl@" .. self.domain, "--server",
    self.directory, "--cert-name", self.domain, "--renew-with-new-domains", "--force-renewal" }
  local how = { "--webroot", "-w", nginx.dir .. "/webroot" }
  if self.method == "dns-01" then
    local path = self.hook or dns_hook
    how = { "--manual", "--preferred-challenges", "dns", "--manual-auth-hook", path .. " set", "--manual-cleanup-hook",
      path .. " clear" }
  end
  table.move(how, 1, #how, #words + 1, words)
  for _, name in ipairs(names) do
    words[#words + 1] = "-d"
    words[#words + 1] = name
  end
  return words
end

-- certificate.acme { domain, names, method, directory, email?, ca?, addresses?, hook? }: one
-- certificate of the CA for all names that lead to this server, or with method = "dns-01" for
-- the domain and its wildcard, and nginx has read it. What cannot be had is a warning, and what
-- nginx shows stays as it was. `ca` is a file on the server with the roots for the directory's
-- own TLS. `hook` (/opt/letsbe/acme/dns-hook) is run as `hook set|clear` with CERTBOT_DOMAIN
-- and CERTBOT_VALIDATION: it sets or clears the TXT record _acme-challenge.CERTBOT_DOMAIN.
certificate.acme = resource("certificate.acme", {
  args = { domain = "string", names = "table", method = "string", directory = "string", email = "string?", ca = "string?",
    addresses = "table?", hook = "string?" },
  check = function(self)
    if self.method ~= "http-01" and self.method ~= "dns-01" then error("certificate.acme: method is http-01 or dns-01", 3) end
    if (self.hook or "/"):find("[^%w/._-]") then error("certificate.acme: hook is a path of letters, digits, '/._-'", 3) end
  end,
  id = function(self) return self.domain end,
  probe = function(self, ctx)
    -- Said in a warning; it is tried again by the next run, not by this one.
    if ctx.state_get("acme of " .. self.domain) == "failed" then return done() end
    local names = names_to_order(self, ctx)
    if #names == 0 then return done() end
    local have = certificate.lineage(ctx.target, self.domain)
    local why = certificate.reasons(have, wanted(self, names), ctx.facts.clock)
    if why then
      return pending(("order a certificate for %s at %s: %s"):format(table.concat(names, ", "), self.directory, why))
    end
    if not have.loaded then return pending("nginx has not read the certificate of " .. self.domain) end
    return done()
  end,
  intent = function(self)
    return ("order a certificate for %s at %s"):format(table.concat(self.names, ", "), self.directory)
  end,
  apply = function(self, ctx)
    local names = names_to_order(self, ctx)
    if #names == 0 then return end
    local have = certificate.lineage(ctx.target, self.domain)
    if certificate.reasons(have, wanted(self, names), ctx.facts.clock) then
      local fine, text = certificate.certbot(ctx, order(self, names), self.ca)
      if not fine then
        ctx.state_set("acme of " .. self.domain, "failed")
        ctx.warn(("no new certificate of %s for %s, what nginx shows stays as it was: %s"):format(self.directory,
          table.concat(names, ", "), certificate.complaint(text)))
        return
      end
    end
    certificate.read_by_nginx(ctx, self.domain)
  end,
})

-- Other renewers that packages bring, and what people put into cron.
local renewers_script = [[
echo "timer $(systemctl is-active certbot.timer) $(systemctl is-enabled certbot.timer 2>/dev/null)"
echo "stale $(systemctl show -p NeedDaemonReload --value certbot.service)"
for u in snap.certbot.renew.timer certbot-renew.timer; do
  if systemctl is-active -q $u || systemctl is-enabled -q $u 2>/dev/null; then echo "other $u"; fi
done
# The package's own does nothing where systemd runs.
grep -lsE '^[^#]*certbot' /etc/crontab /etc/cron.*/* /var/spool/cron/crontabs/root | grep -vxF /etc/cron.d/certbot | sed 's/^/cron /'
true]]

-- certificate.renewers(t) -> { timer = "active enabled", stale?, others = { UNIT... }, cron = { FILE... } }
function certificate.renewers(t)
  local out = t:run(renewers_script).stdout
  local list = { timer = out:match("timer ([^\n]*)"), stale = out:find("stale yes", 1, true) ~= nil, others = {}, cron = {} }
  for unit in out:gmatch("\nother (%S+)") do list.others[#list.others + 1] = unit end
  for path in out:gmatch("\ncron (%S+)") do list.cron[#list.cron + 1] = path end
  return list
end

-- certificate.renewer { ca? }: the package's own certbot.timer renews, and nothing else does;
-- with the same roots for the directory's TLS.
certificate.renewer = resource("certificate.renewer", {
  args = { ca = "string?" },
  id = function() return "certbot.timer" end,
  probe = function(self, ctx)
    local seen, text = certificate.renewers(ctx.target), {}
    local state = file.snapshot(ctx.target, { drop_in })[1]
    if self.ca then
      text[1] = file.difference(drop_in, state, ctx.render("systemd/certbot-ca.conf", { ca = self.ca }), { mode = "0644" })
    elseif state.type ~= "absent" then
      text[1] = "remove " .. drop_in
    end
    if seen.timer ~= "active enabled" then text[#text + 1] = ("certbot.timer: %s -> active enabled"):format(seen.timer) end
    if seen.stale then text[#text + 1] = "systemd has not read what certbot.service says now" end
    for _, unit in ipairs(seen.others) do text[#text + 1] = unit .. ": stopped and disabled, certbot.timer renews" end
    for _, path in ipairs(seen.cron) do ctx.warn(("%s starts certbot too, beside certbot.timer: remove it there"):format(path)) end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  before = function(_, ctx)
    return { ref = file.snapshot(ctx.target, { { drop_in, sum = true } })[1].type ~= "absent" and ctx.stash(drop_in) or nil }
  end,
  apply = function(self, ctx)
    local t = ctx.target
    if self.ca then
      t:run { "mkdir", "-p", (drop_in:match("^(.*)/")) }
      t:put(drop_in, ctx.render("systemd/certbot-ca.conf", { ca = self.ca }), { mode = "0644", owner = "root", group = "root" })
    else
      t:run { "rm", "-f", drop_in }
    end
    for _, unit in ipairs(certificate.renewers(t).others) do t:run { "systemctl", "disable", "--quiet", "--now", unit } end
    t:run("systemctl daemon-reload && systemctl enable --quiet certbot.timer && systemctl start certbot.timer")
  end,
  undo = function(_, ctx, old)
    if old.ref then ctx.unstash(old.ref, drop_in) else ctx.target:run { "rm", "-f", drop_in } end
    ctx.target:run("systemctl daemon-reload")
  end,
})

-- certificate.of_tenant(p, names) -> list of resources: a certificate of our own in any case,
-- then the CA's as the parameters of provisioning say. Sites that are rendered after them
-- show the better one.
function certificate.of_tenant(p, names)
  local list = { certificate.self_signed { names = names } }
  if p.acme == "self-signed" then return list end
  list[2] = directory.present { path = "/etc/letsencrypt/renewal-hooks/deploy", mode = "0755" }
  list[3] = file.template { path = hook, template = "nginx/deploy-hook.sh", mode = "0755", owner = "root", group = "root" }
  list[4] = certificate.renewer { ca = p.acme_ca }
  list[5] = certificate.acme { domain = p.domain, names = names, method = p.acme, directory = p.acme_directory,
    email = p.acme_email, ca = p.acme_ca, addresses = p.acme_addresses }
  return list
end

return certificate
