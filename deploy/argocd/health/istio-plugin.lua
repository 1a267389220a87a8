-- WasmPlugin and TrafficExtension (Istio).
local health = {status = "Healthy", message = "the plugin is there"}
local status = obj.status
if status == nil then
  return health
end
local generation = obj.metadata.generation
local observed = status.observedGeneration
if observed ~= nil and generation ~= nil and tonumber(observed) < tonumber(generation) then
  return {status = "Progressing", message = "istiod has not seen the last change"}
end
for _, condition in ipairs(status.conditions or {}) do
  local of = condition.observedGeneration
  if of ~= nil and generation ~= nil and tonumber(of) < tonumber(generation) then
    return {status = "Progressing", message = "istiod has not seen the last change"}
  end
  if condition.status == "False" then
    return {status = "Degraded", message = condition.message or condition.reason or (condition.type .. " is False")}
  end
end
for _, found in ipairs(status.validationMessages or {}) do
  local level = found.level
  if level == "ERROR" or level == "Error" or level == 3 then
    local kind = found.type or {}
    return {status = "Degraded", message = "istiod: " .. (kind.name or kind.code or "error")}
  end
end
return health
