-- file.lua: files on the target: whole content, templates, single lines, managed blocks,
-- links, absence. It restarts nothing that reads them (see service.fresh).

local file = {}

-- What is read whole to be compared and shown; above it only checksums are compared.
local show_limit = 262144

local snapshot_function = [[
lb_snap() {
  if [ -L "$1" ]; then printf 'link %s\n' "$(readlink "$1")"
  elif [ -d "$1" ]; then stat -c 'directory %a %U %G' "$1"
  elif [ ! -e "$1" ]; then echo absent
  elif [ ! -f "$1" ]; then echo other
  elif [ ! -r "$1" ]; then echo denied
  else
    n=$(stat -c %s "$1"); stat -c 'file %a %U %G %s' "$1"
    if [ "$2" = c ] && [ "$n" -le ]] .. show_limit .. [[ ]; then
      echo "content $n"; head -c "$n" "$1"; echo
    else echo "sum $(sha256sum <"$1" | cut -c1-64)"; fi
  fi
}
]]

-- The shell text that describes the paths; a path is a string or { path, sum = true }.
function file.snapshot_script(paths)
  local parts = { snapshot_function }
  for _, p in ipairs(paths) do
    local name = type(p) == "table" and p[1] or p
    parts[#parts + 1] = ("lb_snap %s %s\n"):format(quote(name), type(p) == "table" and p.sum and "s" or "c")
  end
  return table.concat(parts)
end

-- Reads what `count` lb_snap calls printed, from `at` on -> list of states, next position.
function file.parse_snapshot(text, count, at)
  local list = {}
  at = at or 1
  local function line()
    local stop = text:find("\n", at, true)
    if not stop then fail("target", "the description of a file ended early: " .. text:sub(-80)) end
    local s = text:sub(at, stop - 1)
    at = stop + 1
    return s
  end
  for i = 1, count do
    local head = line()
    local kind = head:match("^%a+")
    local state = { type = kind }
    if kind == "link" then
      state.to = head:sub(6)
    elseif kind == "directory" or kind == "file" then
      local mode, owner, group, size = head:match("^%a+ (%d+) (%S+) (%S+) ?(%d*)$")
      state.mode, state.owner, state.group = ("%04d"):format(tonumber(mode)), owner, group
      state.size = tonumber(size)
      if kind == "file" then
        local what = line()
        local n = what:match("^content (%d+)$")
        if n then
          n = tonumber(n)
          state.content = text:sub(at, at + n - 1)
          at = at + n + 1
        else
          state.sum = what:match("^sum (%x+)$")
        end
      end
    elseif kind == "denied" then
      fail("denied", "a file may not be read by the login user; the runbook or step may need sudo = true")
    elseif kind ~= "absent" and kind ~= "other" then
      fail("target", "a file cannot be described: " .. head)
    end
    list[i] = state
  end
  return list, at
end

-- file.snapshot(t, paths) -> list of { type, mode, owner, group, content or sum }
function file.snapshot(t, paths)
  -- What a file holds, a secret that lbrun does not know too, is not to be kept with the effect.
  local result = t:run(file.snapshot_script(paths), { quiet = true })
  return (file.parse_snapshot(result.stdout, #paths))
end

local function octal(mode)
  local m = tostring(mode)
  if not m:match("^[0-7]?[0-7][0-7][0-7]$") then
    error(("mode '%s' is not octal, such as \"0644\""):format(m), 3)
  end
  return ("%04d"):format(tonumber(m))
end
file.octal = octal

-- The lines "mode 0644 -> 0600" of what differs beside the content.
function file.attribute_changes(state, want)
  local list = {}
  for _, key in ipairs { "mode", "owner", "group" } do
    if want[key] and state[key] ~= want[key] then
      list[#list + 1] = ("%s %s -> %s"):format(key, state[key] or "?", want[key])
    end
  end
  return list
end

local function is_env(path)
  return path:match("%.env$") ~= nil or path:match("/[^/]*%.env%.[^/]*$") ~= nil
end

-- A diff of texts; of bytes that are no text, only that they differ.
local function show(path, old, new)
  for _, text in ipairs { new, old } do
    if text:find("\0", 1, true) or not utf8.len(text) then
      return ("%s: %s, %d bytes that are no text"):format(path, old and "content differs" or "new file", #new)
    end
  end
  return diff(old, new, { path = path, absent = old == nil, keys_only = is_env(path) })
end

-- Compares a state with the wanted content and attributes -> nil when equal, else a text.
function file.difference(path, state, content, want)
  local secret = type(content) ~= "string"
  if state.type == "absent" then
    if secret then return ("%s: new file, content is secret"):format(path) end
    return show(path, nil, content)
  end
  if state.type ~= "file" then
    return ("%s is a %s%s, to be replaced by a file"):format(path, state.type,
      state.to and " to " .. state.to or "")
  end
  local text = {}
  if state.content and not secret then
    if state.content ~= content then
      text[1] = show(path, state.content, content)
    end
  elseif (state.sum or crypto.sha256(state.content)) ~= crypto.sha256(content) then
    text[1] = ("%s: content differs (%s)"):format(path, secret and "it is secret" or "too long to show")
  end
  local attributes = file.attribute_changes(state, want)
  if #attributes > 0 then text[#text + 1] = path .. ": " .. table.concat(attributes, ", ") end
  if #text == 0 then return nil end
  return table.concat(text, "\n")
end

-- Attributes a replaced file keeps where the caller names none.
local function attributes_for(self, state)
  local old = state.type == "file" and state or {}
  return {
    mode = self.mode and octal(self.mode) or old.mode or "0644",
    owner = self.owner or old.owner, group = self.group or old.group,
  }
end

-- file.checked_put(ctx, t, path, content, attributes, check): `check` is a shell text in
-- which $1 is a private copy of the new content; the file is replaced only when it passes.
function file.checked_put(t, path, content, attributes, check)
  if check then
    local staging = ("/var/lib/lbrun/check/%s"):format(crypto.sha256(path):sub(1, 16))
    t:run("umask 077; mkdir -p /var/lib/lbrun/check && chmod 700 /var/lib/lbrun /var/lib/lbrun/check")
    t:put(staging, content, { mode = "0600" })
    local result = t:try("sh -c " .. quote(check) .. " check " .. quote(staging) ..
      "; s=$?; rm -f " .. quote(staging) .. "; exit $s")
    if not result.ok then
      fail("refused", ("%s was left as it is, its new content does not pass its check: %s"):format(path,
        last_lines(result.stderr .. result.stdout, 4):gsub(staging:gsub("%p", "%%%0"), path)))
    end
  end
  t:put(path, content, attributes)
end

-- Undo of every file resource: the old state, or absence.
local function before(path, ctx, state)
  if state.type == "absent" then return { absent = true } end
  return { ref = ctx.stash(path) }
end

local function put_back(path, ctx, old)
  if old.absent then
    ctx.target:run { "rm", "-f", "--", path }
  else
    ctx.unstash(old.ref, path)
  end
end

local function absolute(self)
  if self.path:sub(1, 1) ~= "/" then
    error(("path '%s' is not absolute"):format(self.path), 4)
  end
  if self.mode then octal(self.mode) end
end

-- Everything about one file but where its content comes from.
local function content_resource(name, extra_args, content_of)
  local args = { path = "string", mode = "string?", owner = "string?", group = "string?", check = "string?" }
  for k, v in pairs(extra_args) do args[k] = v end
  local function state_of(self, ctx, content)
    return file.snapshot(ctx.target, { { self.path, sum = type(content) ~= "string" or #content > show_limit } })[1]
  end
  return resource(name, {
    args = args,
    check = absolute,
    id = function(self) return self.path end,
    probe = function(self, ctx)
      local content = content_of(self, ctx)
      local state = state_of(self, ctx, content)
      local text = file.difference(self.path, state, content, attributes_for(self, state))
      return text and pending(text) or done()
    end,
    intent = function(self, ctx)
      local content = content_of(self, ctx)
      if type(content) ~= "string" then return self.path .. ": new content is secret" end
      return show(self.path, nil, content)
    end,
    before = function(self, ctx)
      return before(self.path, ctx, file.snapshot(ctx.target, { { self.path, sum = true } })[1])
    end,
    apply = function(self, ctx)
      local content = content_of(self, ctx)
      local state = state_of(self, ctx, content)
      if state.type == "directory" then
        fail("in_the_way", self.path .. " is a directory; file.content does not replace one")
      end
      file.checked_put(ctx.target, self.path, content, attributes_for(self, state), self.check)
    end,
    undo = function(self, ctx, old) put_back(self.path, ctx, old) end,
  })
end

-- file.content { path, content, mode?, owner?, group?, check? }: a whole file.
file.content = content_resource("file.content", { content = "string|secret" },
  function(self) return self.content end)

-- file.template { path, template, vars?, ... }: a whole file from templates/; vars is a
-- table or a function of ctx. The runbook's parameters are known to every template.
file.template = content_resource("file.template", { template = "string", vars = "table|function|nil" },
  function(self, ctx)
    local vars = self.vars
    if type(vars) == "function" then vars = vars(ctx) end
    return ctx.render(self.template, vars)
  end)

-- A part of a file: `edit(self, text)` gives the whole new text, or the same text.
local function edit_resource(name, args, id, edit)
  local function look(self, ctx)
    local state = file.snapshot(ctx.target, { self.path })[1]
    if state.type ~= "absent" and not state.content then
      fail("in_the_way", ("%s is a %s of %s bytes; lines are edited in plain files up to %d bytes")
        :format(self.path, state.type, state.size or "?", show_limit))
    end
    return state, edit(self, state.content or "")
  end
  args.path = "string"
  return resource(name, {
    args = args,
    check = absolute,
    id = id,
    probe = function(self, ctx)
      local state, text = look(self, ctx)
      if text == (state.content or "") then return done() end
      return pending(diff(state.content, text, { path = self.path, absent = state.type == "absent",
        keys_only = is_env(self.path) }))
    end,
    intent = function(self)
      return diff(nil, edit(self, ""), { path = self.path, absent = true, keys_only = is_env(self.path) })
    end,
    before = function(self, ctx)
      return before(self.path, ctx, file.snapshot(ctx.target, { { self.path, sum = true } })[1])
    end,
    apply = function(self, ctx)
      local state, text = look(self, ctx)
      file.checked_put(ctx.target, self.path, text, attributes_for({}, state), self.check)
    end,
    undo = function(self, ctx, old) put_back(self.path, ctx, old) end,
  })
end

local function lines_of(text)
  local list = {}
  if text ~= "" then
    for line in (text:sub(-1) == "\n" and text or text .. "\n"):gmatch("(.-)\n") do list[#list + 1] = line end
  end
  return list
end
file.lines = lines_of

local function joined(list)
  return #list == 0 and "" or table.concat(list, "\n") .. "\n"
end

-- file.line { path, line, match? }: the line stands in the file; the first line that
-- matches the Lua pattern `match` is replaced by it, other matches are removed.
file.line = edit_resource("file.line", { line = "string", match = "string?", check = "string?" },
  function(self) return self.path .. ": " .. self.line end,
  function(self, text)
    local out, placed = {}, false
    for _, line in ipairs(lines_of(text)) do
      local hit = line == self.line or (self.match and line:find(self.match))
      if not hit then
        out[#out + 1] = line
      elseif not placed then
        placed = true
        out[#out + 1] = self.line
      end
    end
    if not placed then out[#out + 1] = self.line end
    return joined(out)
  end)

-- file.with_block(text, name, content) -> text with the block, content nil: without it.
function file.with_block(text, name, content)
  local first, last = "# BEGIN lbrun " .. name, "# END lbrun " .. name
  local out, inside, placed = {}, false, false
  local function place()
    if content and not placed then
      out[#out + 1] = first
      for _, line in ipairs(lines_of(content)) do out[#out + 1] = line end
      out[#out + 1] = last
    end
    placed = true
  end
  for _, line in ipairs(lines_of(text)) do
    if line == first then
      inside = true
      place()
    elseif inside then
      inside = line ~= last
    else
      out[#out + 1] = line
    end
  end
  place()
  return joined(out)
end

-- file.block { path, name, content }: marked lines inside a file that others own.
file.block = edit_resource("file.block", { name = "string", content = "string", check = "string?" },
  function(self) return self.path .. ": " .. self.name end,
  function(self, text) return file.with_block(text, self.name, self.content) end)

-- file.absent { path, recursive? }: neither file nor link there; a directory only when
-- recursive is given.
file.absent = resource("file.absent", {
  args = { path = "string", recursive = "boolean?" },
  check = function(self)
    absolute(self)
    if self.path:gsub("/+", "/"):gsub("/$", ""):match("^/?[^/]*$") then
      error(("file.absent: '%s' is too near the root"):format(self.path), 3)
    end
  end,
  id = function(self) return self.path end,
  probe = function(self, ctx)
    local state = file.snapshot(ctx.target, { { self.path, sum = true } })[1]
    if state.type == "absent" then return done() end
    return pending(("remove the %s %s"):format(state.type, self.path))
  end,
  before = function(self, ctx) return { ref = ctx.stash(self.path) } end,
  apply = function(self, ctx)
    if not self.recursive and file.snapshot(ctx.target, { { self.path, sum = true } })[1].type == "directory" then
      fail("in_the_way", self.path .. " is a directory; say recursive = true to remove it with its content")
    end
    ctx.target:run { "rm", self.recursive and "-rf" or "-f", "--one-file-system", "--", self.path }
  end,
  undo = function(self, ctx, old) ctx.unstash(old.ref, self.path) end,
})

-- file.link { path, to }: a symbolic link.
file.link = resource("file.link", {
  args = { path = "string", to = "string" },
  check = absolute,
  id = function(self) return self.path end,
  probe = function(self, ctx)
    local state = file.snapshot(ctx.target, { { self.path, sum = true } })[1]
    if state.type == "link" and state.to == self.to then return done() end
    return pending(("%s: %s -> link to %s"):format(self.path, state.to and "link to " .. state.to or state.type, self.to))
  end,
  intent = function(self) return ("%s: link to %s"):format(self.path, self.to) end,
  before = function(self, ctx)
    return before(self.path, ctx, file.snapshot(ctx.target, { { self.path, sum = true } })[1])
  end,
  apply = function(self, ctx)
    ctx.target:run(("[ ! -d %s ] || [ -L %s ] || exit 20; ln -sfn -- %s %s && mv -fT -- %s %s"):format(
      quote(self.path), quote(self.path), quote(self.to), quote(self.path .. ".lbrun-link"),
      quote(self.path .. ".lbrun-link"), quote(self.path)))
  end,
  undo = function(self, ctx, old) put_back(self.path, ctx, old) end,
})

return file
