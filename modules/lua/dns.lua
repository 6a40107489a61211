-- dns.lua: where names lead, as the server sees it: by the zone's own name servers, whose
-- answers no cache has aged, else by the server's resolver. It changes no zone.

local dns = {}

-- One block a name, all asked at the same time. What a name server that owns the zone says
-- counts; a name that is an alias, or in a zone of its own, is followed by the resolver.
local script = [[
zone=%s
echo "=== addresses"
ip -o addr show scope global 2>/dev/null
command -v dig >/dev/null || {
  for n in %s; do
    printf '=== name %%s resolver\nstatus: NOERROR,\n' "$n"
    getent ahosts "$n" | sed 's/^\([^ ]*\).*/getent \1/' | sort -u
  done
  exit 0
}
ask() { dig +noall +comments +answer +time=3 +tries=2 "$@" 2>/dev/null; }
own=
for s in $(dig +short +time=3 +tries=2 NS "$zone" 2>/dev/null | grep -v '^;' | head -n 4); do
  case $(ask "@$s" +norecurse "$zone" SOA) in *'flags: qr aa'*) own=$s; break ;; esac
done
one() {
  by=$own; a=
  [ -z "$own" ] || a=$(ask "@$own" +norecurse "$1" A "$1" AAAA)
  case $a in
  *CNAME*) a= ;;
  *'flags: qr aa'*) ;;
  *) a= ;;
  esac
  [ -n "$a" ] || { by=resolver; a=$(ask "$1" A "$1" AAAA); }
  printf '=== name %%s %%s\n%%s\n' "$1" "$by" "$a"
}
for n in %s; do one "$n" & done
wait]]

-- Containers' networks are not how the world reaches a server.
local inner = { "^docker", "^br%-", "^veth", "^lo$", "^cni", "^virbr" }

local function own_addresses(block)
  local list = {}
  for device, address in block:gmatch("%d+: (%S+)%s+inet6? ([%x.:]+)/") do
    local outer = true
    for _, pattern in ipairs(inner) do outer = outer and not device:find(pattern) end
    if outer then list[#list + 1] = address:lower() end
  end
  return list
end

-- dns.parse(out) -> { addresses of the server }, { [name] = { addresses, by, status } }
-- status is NOERROR or NXDOMAIN where somebody answered.
function dns.parse(out)
  local mine, found = {}, {}
  for head, block in ("\n" .. out):gsub("\n=== ", "\0"):gmatch("%z([^\n%z]*)([^%z]*)") do
    local name, by = head:match("^name (%S+) (%S+)$")
    if head == "addresses" then
      mine = own_addresses(block)
    elseif name then
      local entry = { addresses = {}, by = by:gsub("%.$", "") }
      for line in block:gmatch("[^\n]+") do
        local address = line:match("^getent (%S+)$") or line:match("^%S+%s+%d+%s+IN%s+A+%s+([%x.:]+)$")
        local status = line:match("status: (%u+),")
        if address then entry.addresses[#entry.addresses + 1] = address:lower() end
        -- Of two answers the worse one counts, unless there is an address.
        if status and (not entry.status or entry.status == "NOERROR") then entry.status = status end
      end
      if #entry.addresses > 0 then entry.status = "NOERROR" end
      found[name] = entry
    end
  end
  return mine, found
end

-- dns.leads_here(entry, mine) -> true, or false and why. Each address counts: a certificate
-- authority asks any of them.
function dns.leads_here(entry, mine)
  if not entry or not entry.status then return false, "no name server answers for it" end
  if #entry.addresses == 0 then
    if entry.status == "NOERROR" or entry.status == "NXDOMAIN" then return false, "it does not resolve" end
    return false, ("its name server answers %s"):format(entry.status)
  end
  local own, others = {}, {}
  for _, address in ipairs(mine) do own[address] = true end
  for _, address in ipairs(entry.addresses) do
    if not own[address] then others[#others + 1] = address end
  end
  if #others == 0 then return true end
  return false, ("it leads %sto %s, not to this server (%s)"):format(#others < #entry.addresses and "also " or "",
    table.concat(others, ", "), #mine > 0 and table.concat(mine, ", ") or "no public address known")
end

-- dns.split(t, { zone, names, addresses? }) -> names that lead to this server, and a list of
-- { name, why } of the others. `addresses` are further ones of this server, such as of a
-- network that translates them.
function dns.split(t, given)
  local words = argv(given.names)
  local mine, found = dns.parse(t:run(script:format(quote(given.zone), words, words), { timeout = 120 }).stdout)
  local host = t.url and t.url:match("^ssh://[^@]*@?%[?([%x.:]-)%]?:%d+$")
  if host and (host:find("^%d+%.%d+%.%d+%.%d+$") or host:find(":", 1, true)) then mine[#mine + 1] = host:lower() end
  for _, address in ipairs(given.addresses or {}) do mine[#mine + 1] = address:lower() end
  local seen, all = {}, {}
  for _, address in ipairs(mine) do
    if not seen[address] then all[#all + 1] = address end
    seen[address] = true
  end
  local here, left = {}, {}
  for _, name in ipairs(given.names) do
    local fine, why = dns.leads_here(found[name], all)
    if fine then here[#here + 1] = name else left[#left + 1] = { name = name, why = why } end
  end
  return here, left
end

-- Each name asked of each server that owns the zone, and of each resolver, without a cache of
-- the machine's own in between.
local everywhere = [[
first=%s
ask() { # SERVER[:PORT] NAME TYPE
  port=53; at=$1
  case $1 in *:*) port=${1##*:}; at=${1%%:*} ;; esac
  dig +short +time=3 +tries=2 -p "$port" "@$at" "$2" "$3" 2>/dev/null
}
zone=%s; list=
while [ "$zone" != "${zone#*.}" ]; do
  list=$(ask "$first" "$zone" NS | grep -v '^;' | head -n 4)
  [ -z "$list" ] || break
  zone=${zone#*.}
done
own=
for ns in $list; do
  for at in $(ask "$first" "$ns" A | grep -E '^[0-9.]+$' | head -n 1); do own="$own $at"; done
done
[ -n "$own" ] || echo "none - authoritative -"
answers() {
  ask "$1" "$2" A | grep -E '^[0-9.]+$' | sort
  ask "$1" "$2" AAAA | grep : | grep -v '^;' | sort
}
look() { printf '%%s %%s %%s %%s\n' "$1" "$2" "$3" "$(answers "$2" "$3" | tr '\n' ,)"; }
for n in %s; do
  for s in $own; do look authoritative "$s" "$n" & done
  for s in %s; do look resolver "$s" "$n" & done
  wait
done]]

-- dns.unready(t, { domain, names, address, resolvers }) -> texts that say who does not yet
-- lead which name to this address and to no other; {}: all do.
function dns.unready(t, given)
  local out = t:run(everywhere:format(quote(given.resolvers[1]), quote(given.domain), argv(given.names), argv(given.resolvers)),
    { timeout = 600 }).stdout
  local list, seen = {}, 0
  for kind, at, name, answers in out:gmatch("(%S+) (%S+) (%S+) ([^\n]*)\n") do
    if kind == "none" then
      list[#list + 1] = "no name server of the zone is known"
    else
      seen = seen + 1
      answers = answers:gsub(",$", "")
      if answers ~= given.address then
        list[#list + 1] = ("%s: %s (%s) says %s"):format(name, at, kind, answers == "" and "nothing" or answers)
      end
    end
  end
  if seen == 0 then list[#list + 1] = "nobody was asked: dig is missing" end
  return list
end

return dns
