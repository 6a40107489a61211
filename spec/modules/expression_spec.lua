-- expression: what template.c asks of it. The language itself is in template_spec.lua.
local expression = require "expression"

local function value(source, scope, names)
  return expression.value(source, 0, #source, scope or {}, names or {}, false)
end

describe("expression #unit", function()
  it("reads one value and says where it ends", function()
    assert.same({ 3, 7 }, { value("a.b | sh", { a = { b = 7 } }) })
    assert.same({ 3, "x" }, { value("'x' ") })
    assert.same({ 3, 7 }, { expression.value("{{a}}", 2, 3, { a = 7 }, {}, false) })
  end)

  it("reads a whole condition", function()
    assert.same({ 6, true }, { expression.test("a == 1", 0, 6, { a = 1 }, {}, false) })
    assert.same({ 6, false }, { expression.test("a == 1", 0, 6, { a = 2 }, {}, false) })
  end)

  it("reads a value with its filters and names the one for the place", function()
    local pos, text, place, quoted = expression.output("a | upper | sh", 0, 14, { a = "x y" }, {}, false, "raw")
    assert.same({ 14, "'X Y'", "sh", true }, { pos, text, place, quoted })
    assert.same({ 1, '"x"', "yaml", true }, { expression.output("a", 0, 1, { a = "x" }, {}, false, "yaml") })
  end)

  it("notes, dry, the names that are not bound", function()
    local names = {}
    assert.equal(22, (expression.test("a.b and x or c[d] == 1", 0, 22, { x = true }, names, true)))
    assert.same({ a = true, c = true, d = true }, names)
  end)

  it("says what is wrong and where", function()
    local nothing, err = value("abc", {}, { abd = 1 })
    assert.is_nil(nothing)
    assert.equal("expression", err.code)
    assert.equal(0, err.at)
    assert.equal("'abc' is undefined; did you mean 'abd'?", err.message)
  end)

  it("raises for misuse", function()
    for _, args in ipairs { {}, { 1 }, { "a", -1, 1 }, { "a", 0, 2 }, { "a", 1, 0 }, { "a", 0, 1, 1 },
      { "a", 0, 1, {}, 1 }, { "a", "x", 1 } } do
      assert.is_false(pcall(expression.value, table.unpack(args, 1, 5)))
      assert.is_false(pcall(expression.test, table.unpack(args, 1, 5)))
      assert.is_false(pcall(expression.output, table.unpack(args, 1, 5)))
    end
  end)
end)
