-- display.lua: what a person or a program sees of a run: live lines, plain lines, or JSON
-- lines. Results go to stdout, messages to stderr; all of it passes the masker.
local host = require "host"
local util = require "lb.util"

local display = {}
display.__index = display

local schema = 1
local colors = { red = 31, green = 32, yellow = 33, dim = 2, bold = 1 }

-- display.new(options, many): `many` runs at once name their target in each line.
function display.new(options, many)
  local self = setmetatable({ options = options, many = many, seq = 0, width = 14 }, display)
  self.json = options.json
  display.last = self
  self.verbose = options.verbose or 0
  local color = options.color or "auto"
  local plain = host.getenv("NO_COLOR") or host.getenv("TERM") == "dumb"
  self.color = color == "always" or color == "auto" and host.isatty("err") and not plain
  self.live = host.isatty("err") and host.getenv("TERM") ~= "dumb" and not self.json
    and not options.quiet and not many
  return self
end

function display:paint(name, text)
  if not self.color then return text end
  return ("\27[%dm%s\27[0m"):format(colors[name], text)
end

function display:say(text)
  if self.options.quiet or self.json then return end
  self:clear()
  host.write("err", text .. "\n")
end

function display:clear()
  if self.drawn then host.write("err", "\r\27[K") end
  self.drawn = false
end

function display:line(data)
  self.seq = self.seq + 1
  if self.seq == 1 then data.schema = schema end
  data.ts, data.seq = host.now(), self.seq
  host.write("out", util.json(data) .. "\n")
end

-- The end of a command that is no run: one line of text, or the summary of --json.
function display.result(options, text, summary)
  if not options.json then
    host.write("out", text .. "\n")
  else
    summary.type, summary.message = "summary", summary.message or text
    local self = display.last or display.new(options)
    self:line(summary)
  end
end

local function prefix(self, run)
  return self.many and ("[%s] "):format(run.subject or run.spec and run.spec.url or run.id) or ""
end

function display:begin_step(run, step)
  self.current = { run = run, step = step, since = host.monotonic() }
  self.width = math.min(60, math.max(self.width, #step.name)) -- a format takes no more than 99
  if self.live and not self.ticker then
    self.ticker = host.task(function()
      while host.sleep(0.2) do
        if self.current then self:draw() end
      end
    end)
  end
  if self.live then self:draw() end
end

function display:draw()
  local c = self.current
  local seconds = host.monotonic() - c.since
  local bar = ""
  if c.total and c.total > 0 then
    local n = math.floor(20 * math.min(1, c.done / c.total))
    bar = (" [%s%s] %d %%"):format(("#"):rep(n), ("."):rep(20 - n), math.floor(100 * c.done / c.total))
  end
  local text = ("  %-" .. self.width .. "s %s%s %s"):format(c.step.name, util.show_seconds(seconds), bar, c.detail or "")
  local width = host.width() - 1
  if #text > width then text = host.mask(text):sub(1, math.max(10, width - 1)) end
  host.write("err", "\r\27[K" .. text)
  self.drawn = true
end

function display:detail(_, text)
  if self.current then self.current.detail = text:gsub("[%c]", " ") end
  if self.verbose >= 3 then self:say("      " .. text) end
end

function display:progress(run, done, total, what)
  local c = self.current
  if c then c.done, c.total, c.detail = done, total, what end
  if self.json then self:line { type = "progress", run = run.id, done = done, total = total, what = what } end
end

function display:note(run, text)
  if self.json then return self:line { type = "note", run = run.id, text = text } end
  self:say("  " .. prefix(self, run) .. self:paint("dim", text))
end

function display:note_status(run, text)
  if self.verbose >= 1 then self:note(run, text) end
end

local function indent(text, by)
  return (by .. text:gsub("\n$", ""):gsub("\n", "\n" .. by))
end

local shown = {}
shown["run.start"] = function(self, run)
  self:say(("%s%s  %s%s%s"):format(prefix(self, run), self:paint("bold", run.id), run.book.name,
    run.subject and " of " .. run.subject or "", run.spec and " on " .. run.spec.url or ""))
end
shown["run.resume"] = function(self, run, data)
  shown["run.start"](self, run)
  self:say("  " .. prefix(self, run) .. self:paint("dim", ("resumed; %d steps were done before"):format(data.done)))
end
shown["run.continue"] = shown["run.resume"]
shown["step.done"] = function(self, run, data)
  local word = data.changed > 0 and self:paint("green", ("%-9s"):format("changed")) or ("%-9s"):format("ok")
  self:say(("  %s%-" .. self.width .. "s %s %7s%s"):format(prefix(self, run), data.step, word,
    util.show_seconds(data.seconds), data.changed > 0 and ("  %d of %d"):format(data.changed, data.effects) or ""))
  self.current = nil
end
shown["step.skipped"] = function(self, run, data)
  if self.verbose >= 1 then self:say(("  %s%-" .. self.width .. "s skipped"):format(prefix(self, run), data.step)) end
end
local function stopped(word)
  return function(self, run, data)
    self:say(("  %s%-" .. self.width .. "s %s"):format(prefix(self, run), data.step, self:paint("red", word)))
    self.current = nil
  end
end
shown["step.failed"], shown["step.doubt"], shown["step.parked"] = stopped("failed"), stopped("in doubt"), stopped("parked")
shown["step.retry"] = function(self, run, data)
  self:say(("  %s%s: %s; again in %s"):format(prefix(self, run), data.step, data.why, util.show_seconds(data.after)))
end
shown.warning = function(self, run, data)
  self:say("  " .. prefix(self, run) .. self:paint("yellow", "warning: ") .. data.text)
end
shown.log = function(self, run, data) self:say("    " .. prefix(self, run) .. data.text) end
shown["effect.begin"] = function(self, run, data)
  if self.verbose >= 1 then self:say("    " .. prefix(self, run) .. data.effect) end
  if (self.verbose >= 2 or self.options.diff) and data.diff and data.diff ~= "" then
    self:say(indent(data.diff, "      "))
  end
end
shown["effect.interrupted"] = function(self, run, data) self:say("    " .. prefix(self, run) .. data.why) end
shown["target.reconnected"] = function(self, run, data)
  self:say(("    %sconnected again to %s%s"):format(prefix(self, run), data.target, data.rebooted and " (it was rebooted)" or ""))
end
shown["target.switched"] = function(self, run, data)
  self:say(("    %sgoing on by %s"):format(prefix(self, run), data.target))
end
shown["target.accepted"] = function(self, run, data)
  self:say(("  %s%s first contact: accepted the %s host key %s of %s"):format(prefix(self, run),
    self:paint("yellow", "note:"), data.type or "", data.fingerprint, data.target))
end
shown["job.found"] = function(self, run, data)
  self:say(("    %sfound a command of an earlier attempt: %s"):format(prefix(self, run), data.state))
end

function display:event(run, type, data)
  if self.json then
    local copy = {}
    for k, v in pairs(data) do copy[k] = v end
    if data.type then copy.kind = data.type end
    copy.type, copy.run = type, run.id
    return self:line(copy)
  end
  if shown[type] then shown[type](self, run, data) end
end

-- The end of one run: its outcome in one line, what is left, the next command.
function display:summary(run, s)
  self.current = nil
  if self.ticker and not run.parent then
    self.ticker:cancel()
    self.ticker = nil
  end
  self:clear()
  if run.parent then return end
  if self.json then
    return self:line { type = "summary", run = run.id, target = run.spec and run.spec.url, status = s.status,
      exit = s.exit, changed = s.changed, unchanged = s.unchanged, warnings = s.warnings, seconds = s.seconds,
      code = s.code, message = s.message, step = s.step, head = s.head, next = s.next, due = s.due }
  end
  local p = prefix(self, run)
  if s.status == "done" then
    if not self.options.quiet then
      host.write("out", ("%s%s: %s, %d changed, %d unchanged%s, %s  (journal head %s)\n"):format(p, run.id,
        host.isatty("out") and self:paint("green", "done") or "done", s.changed, s.unchanged,
        #s.warnings > 0 and (", %d warning%s"):format(#s.warnings, #s.warnings == 1 and "" or "s") or "",
        util.show_seconds(s.seconds), tostring(s.head):sub(1, 12)))
    end
    return
  end
  host.write("err", ("%slbrun: %s%s\n"):format(p, s.message or s.status,
    s.step and not (s.message or ""):find(s.step, 1, true) and (" (step %s)"):format(s.step) or ""))
  host.write("out", ("%s%s: %s, %d changed, %d unchanged, exit %d  (journal head %s)\n"):format(p, run.id,
    s.status, s.changed, s.unchanged, s.exit, tostring(s.head):sub(1, 12)))
  if s.next then host.write("out", ("%snext: %s\n"):format(p, s.next)) end
end

return display
