-- EnvoyExtensionPolicy (Envoy Gateway): its status has conditions for each Gateway or route that it is attached to.
local ancestors = obj.status and obj.status.ancestors or {}
if #ancestors == 0 then
  return {status = "Progressing", message = "Envoy Gateway has not seen it, or its target is not there"}
end
local waiting = nil
for _, ancestor in ipairs(ancestors) do
  local accepted = false
  for _, condition in ipairs(ancestor.conditions or {}) do
    if condition.type == "Accepted" then
      local of = condition.observedGeneration
      if of ~= nil and obj.metadata.generation ~= nil and tonumber(of) < tonumber(obj.metadata.generation) then
        waiting = "Envoy Gateway has not seen the last change"
      elseif condition.status == "False" then
        return {status = "Degraded", message = condition.message or condition.reason or "not accepted"}
      end
      accepted = condition.status == "True"
    end
  end
  if not accepted and waiting == nil then
    waiting = "not accepted yet"
  end
end
if waiting ~= nil then
  return {status = "Progressing", message = waiting}
end
return {status = "Healthy", message = "accepted"}
