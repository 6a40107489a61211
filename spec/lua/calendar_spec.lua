-- calendar_spec.lua: days and times as text and back, and what is neither.
local script = require "lb.script"
local sources = require "lb.sources"

local calendar = script.environment(sources.collect "runbooks/backup.lua").calendar

describe("the calendar #unit", function()
  it("knows dates, Sundays and leap days", function()
    assert.is_true(calendar.is_sunday("2026-03-01"))
    assert.is_false(calendar.is_sunday("2026-02-26"))
    for _, name in ipairs { "2028-02-29", "2000-02-29", "0000-02-29", "9999-12-31" } do assert.is_true(calendar.is_day(name), name) end
    for _, name in ipairs { "2026-02-29", "2100-02-29", "2026-04-31", "2026-13-01", "2026-00-10", "2026-1-1", "daily", "..",
      "2026-02-26.old", "", "2026-02-26/" } do
      assert.is_false(calendar.is_day(name), name)
    end
  end)

  it("counts each day of four centuries once, as the system's own calendar does", function()
    for days = -25567, -25567 + 146097 do
      local name = calendar.date(days)
      assert(calendar.days(name) == days, name)
      assert(os.date("!%Y-%m-%d", days * 86400) == name, name)
    end
  end)

  it("writes and reads times", function()
    assert.equal("2026-02-26T02:15:00Z", calendar.utc(1772072100))
    assert.equal("1970-01-01T00:00:00Z", calendar.utc(0))
    for _, seconds in ipairs { 0, 1, 59, 86399, 86400, 951782399, 1772072100, 4102444800 } do
      assert.equal(seconds, calendar.epoch(calendar.utc(seconds)))
    end
    assert.equal(1772072100, calendar.epoch("2026-02-26T02:15Z"))
    for _, text in ipairs { "2026-02-29T00:00:00Z", "2026-02-26T24:00:00Z", "2026-02-26T00:60:00Z", "2026-02-26T00:00:60Z",
      "2026-02-26T00:00:7Z", "2026-02-26T00:00:Z", "2026-02-26T00:00:00", "2026-02-26 00:00:00Z", "2026-02-26T00:00:00+00:00", "" } do
      assert.is_nil(calendar.epoch(text), text)
    end
  end)
end)
