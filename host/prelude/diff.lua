-- diff.lua: unified diffs of two texts (Myers' O(ND) algorithm, "An O(ND) Difference
-- Algorithm and Its Variations", 1986). It reads no files and knows no secrets:
-- `keys_only` shows lines KEY=value by their key.
local function split(text)
  local lines = {}
  if text == "" then return lines end
  for line in (text:sub(-1) == "\n" and text or text .. "\n"):gmatch("(.-)\n") do
    lines[#lines + 1] = line
  end
  return lines
end

-- The edit script as a list of { op, line }: " ", "-", "+".
local function script(a, b, limit)
  local n, m = #a, #b
  local first = 1
  while first <= n and first <= m and a[first] == b[first] do first = first + 1 end
  local trace, v = {}, { [1] = 0 }
  local an, bn = n - first + 1, m - first + 1
  local found
  for d = 0, math.min(an + bn, limit) do
    local copy = {}
    for k, x in pairs(v) do copy[k] = x end
    trace[d] = copy
    for k = -d, d, 2 do
      local x
      if k == -d or (k ~= d and v[k - 1] < v[k + 1]) then x = v[k + 1] else x = v[k - 1] + 1 end
      local y = x - k
      while x < an and y < bn and a[first + x] == b[first + y] do x, y = x + 1, y + 1 end
      v[k] = x
      if x >= an and y >= bn then
        found = d
        break
      end
    end
    if found then break end
  end
  local tail = {}
  if not found then
    for i = n, first, -1 do tail[#tail + 1] = { "-", a[i] } end
    local plus = {}
    for i = m, first, -1 do plus[#plus + 1] = { "+", b[i] } end
    table.move(tail, 1, #tail, #plus + 1, plus)
    tail = plus
  else
    local x, y = an, bn
    for d = found, 1, -1 do
      local pv = trace[d]
      local k = x - y
      local pk
      if k == -d or (k ~= d and pv[k - 1] < pv[k + 1]) then pk = k + 1 else pk = k - 1 end
      local px = pv[pk]
      local py = px - pk
      while x > px and y > py do
        tail[#tail + 1] = { " ", a[first + x - 1] }
        x, y = x - 1, y - 1
      end
      if x == px then tail[#tail + 1] = { "+", b[first + y - 1] }
      else tail[#tail + 1] = { "-", a[first + x - 1] } end
      x, y = px, py
    end
    while x > 0 and y > 0 do
      tail[#tail + 1] = { " ", a[first + x - 1] }
      x, y = x - 1, y - 1
    end
  end
  local ops = {}
  for i = 1, first - 1 do ops[#ops + 1] = { " ", a[i] } end
  for i = #tail, 1, -1 do ops[#ops + 1] = tail[i] end
  return ops
end

local function hide(line)
  local key = line:match("^%s*[%w_.]+%s*=")
  return key and key .. "[hidden]" or line
end

-- diff(old, new, { path=, context=3, keys_only=bool, absent=bool }) -> text, "" when equal
return function(old, new, options)
  options = options or {}
  if old == new and not options.absent then return "" end
  local context = options.context or 3
  local ops = script(split(old or ""), split(new), 2000)
  local out = {
    "--- " .. ((old == nil or options.absent) and "/dev/null" or "a" .. (options.path or "")),
    "+++ b" .. (options.path or ""),
  }
  local line_a, line_b = 1, 1
  local i = 1
  while i <= #ops do
    if ops[i][1] == " " then
      i, line_a, line_b = i + 1, line_a + 1, line_b + 1
    else
      local start = math.max(1, i - context)
      local back = i - start
      local stop, quiet = i, 0
      local j = i
      while j <= #ops and quiet <= 2 * context do
        if ops[j][1] == " " then quiet = quiet + 1 else quiet, stop = 0, j end
        j = j + 1
      end
      stop = math.min(#ops, stop + context)
      local na, nb, body = 0, 0, {}
      for k = start, stop do
        local op, text = ops[k][1], ops[k][2]
        if op ~= "+" then na = na + 1 end
        if op ~= "-" then nb = nb + 1 end
        body[#body + 1] = op .. (options.keys_only and hide(text) or text)
      end
      local a0, b0 = line_a - back, line_b - back
      out[#out + 1] = ("@@ -%d,%d +%d,%d @@"):format(na == 0 and a0 - 1 or a0, na,
        nb == 0 and b0 - 1 or b0, nb)
      out[#out + 1] = table.concat(body, "\n")
      line_a, line_b = a0 + na, b0 + nb
      i = stop + 1
    end
  end
  return table.concat(out, "\n") .. "\n"
end
