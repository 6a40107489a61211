-- acme.lua: pebble, Debian's ACME server, and its pebble-challtestsrv, which stands in for the
-- internet's DNS, on the sandbox's own network. It asserts nothing.
local support = require "support.lbrun"
local quote = support.quote

local acme = {}
acme.__index = acme

-- acme.dns(address, dir) -> a name server at address:53 that knows no name yet
function acme.dns(address, dir)
  local self = setmetatable({ address = address, dir = dir, pids = {} }, acme)
  self:start("dns", ("pebble-challtestsrv -dns01 %s:53 -management %s:8055 -http01 '' -https01 '' -tlsalpn01 '' -defaultIPv4 '' -defaultIPv6 ''")
    :format(address, address), ("http://%s:8055/clear-txt -d '{}'"):format(address))
  return self
end

-- Starts it and waits until `ready`, curl's words, gets an answer.
function acme:start(name, command, ready)
  local pid = support.sh(("cd %s; exec setsid %s >%s.log 2>&1 </dev/null & echo $!"):format(self.dir, command, name))
  self.pids[#self.pids + 1] = pid:match "%d+"
  for _ = 1, 100 do
    if support.sh(("curl -sk -o /dev/null %s && echo up"):format(ready)) == "up\n" then return end
    support.sh "sleep 0.1"
  end
  error(name .. " does not answer:\n" .. support.slurp(self.dir .. "/" .. name .. ".log"))
end

-- Its own TLS is signed by a root of ours, ca.pem; what it issues by one that it makes
-- at its start, root.pem.
function acme:authority()
  support.sh((([[
cd DIR
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=sandbox root' 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr -subj /CN=acme 2>/dev/null
printf 'subjectAltName=IP:ADDRESS\n' >tls.ext
openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile tls.ext -out tls.pem 2>/dev/null
printf '{"pebble":{"listenAddress":"ADDRESS:14000","managementListenAddress":"ADDRESS:15000","certificate":"tls.pem",
"privateKey":"tls.key","httpPort":80,"tlsPort":443,"ocspResponderURL":"","externalAccountBindingRequired":false}}\n' >pebble.json
]]):gsub("DIR", self.dir):gsub("ADDRESS", self.address)))
  self.directory = ("https://%s:14000/dir"):format(self.address)
  self.ca, self.root = self.dir .. "/ca.pem", self.dir .. "/root.pem"
end

function acme:issue()
  -- It refuses one nonce in twenty, for practice; certbot gives up after two in a row, which
  -- is no rare thing in an order of 35 names.
  self:start("pebble", ("env PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 pebble -config pebble.json -dnsserver %s:53"):format(self.address),
    self.directory)
  support.sh(("curl -s --cacert %s https://%s:15000/roots/0 >%s"):format(self.ca, self.address, self.root))
end

-- acme:point(name, address or nil): the A record of a name, or none any more.
function acme:point(name, address)
  local call = address and "add-a" or "clear-a"
  local body = address and ('{"host":"%s.","addresses":["%s"]}'):format(name, address) or ('{"host":"%s."}'):format(name)
  support.sh(("curl -s -d %s http://%s:8055/%s"):format(quote(body), self.address, call))
end

function acme:stop()
  for _, pid in ipairs(self.pids) do support.sh("kill " .. pid .. " 2>/dev/null") end
end

return acme
