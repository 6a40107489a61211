-- canary.lua: looks for planted secrets in bytes, in every form in which they may hide.
-- It knows nothing of lbrun's masker, whose work it checks.
local canary = {}

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    for k = 3, 0, -1 do
      local at = n >> 6 * k & 63
      out[#out + 1] = alphabet:sub(at + 1, at + 1)
    end
  end
  local text = table.concat(out)
  local pad = (3 - #bytes % 3) % 3
  return text:sub(1, #text - pad)
end

-- The characters that depend on the secret alone, whatever stands around it.
local function aligned(bytes, shift)
  local text = base64(("\0"):rep(shift) .. bytes)
  local first = shift == 0 and 1 or shift + 2
  local whole = (shift + #bytes) // 3 * 4 + ({ [0] = 0, 1, 2 })[(shift + #bytes) % 3]
  return text:sub(first, whole)
end

local function hex(bytes, format)
  return (bytes:gsub(".", function(c) return format:format(c:byte()) end))
end

-- canary.forms(secret) -> list of { name, bytes }
function canary.forms(secret)
  local list = {}
  local function add(name, bytes) list[#list + 1] = { name, bytes } end
  add("raw", secret)
  for shift = 0, 2 do
    local text = aligned(secret, shift)
    add("base64+" .. shift, text)
    add("base64url+" .. shift, (text:gsub("+", "-"):gsub("/", "_")))
  end
  add("hex", hex(secret, "%02x"))
  add("HEX", hex(secret, "%02X"))
  add("url", (secret:gsub("[^%w._~-]", function(c) return ("%%%02X"):format(c:byte()) end)))
  add("url lower", (secret:gsub("[^%w._~-]", function(c) return ("%%%02x"):format(c:byte()) end)))
  local escaped = secret:gsub('[\\"]', "\\%0"):gsub("\n", "\\n")
  add("json", escaped)
  add("json in json", (escaped:gsub('[\\"]', "\\%0")))
  add("shell", (secret:gsub("'", [['\'']])))
  add("first half", secret:sub(1, #secret // 2))
  add("second half", secret:sub(#secret // 2 + 1))
  local n = 0
  for line in secret:gmatch "[^\n]+" do
    n = n + 1
    if line ~= secret and #line >= 8 then add("line " .. n, line) end
  end
  return list
end

-- canary.find(bytes, secrets) -> list of "NAME as FORM"
function canary.find(bytes, secrets)
  local found = {}
  -- base64 and hex that were broken into lines are looked for without the breaks.
  local joined = bytes:gsub("\\n", ""):gsub("%s", "")
  for name, secret in pairs(secrets) do
    for _, form in ipairs(canary.forms(secret)) do
      if bytes:find(form[2], 1, true) or #form[2] >= 8 and not form[2]:find "%s" and joined:find(form[2], 1, true) then
        found[#found + 1] = name .. " as " .. form[1]
      end
    end
  end
  return found
end

return canary
