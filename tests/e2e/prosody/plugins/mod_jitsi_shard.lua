-- What nginx and Jitsi's own modules do on a real shard: every HTTP answer names the shard (X-Jitsi-Shard), `/_unlock` answers
-- 200, `/{tenant}/…` reaches the same endpoints as `/…`, and the domain's disco#info names the shard as lib-jitsi-meet reads it.
local server = require "net.http.server";

module:set_global();

local shard = module:get_option_string("jitsi_shard");
local region = module:get_option_string("jitsi_region");

-- Events are named "METHOD /path" and then "METHOD host/path"; only a path of two segments has a tenant to cut off.
local function without_tenant(event_name)
	return (event_name:gsub("^(%u+ [^/]*)/[^/]+(/[^/]+)$", "%1%2"));
end

module:wrap_object_event(server._events, false, function (handlers, event_name, event_data)
	local response = event_data and event_data.response;
	if response and response.headers and event_name:match("^%u+ [^/]*/") then
		response.headers.x_jitsi_shard = shard;
		response.headers.x_jitsi_region = region;
		event_name = without_tenant(event_name);
		if event_name == "GET /_unlock" then
			return "";
		end
	end
	return handlers(event_name, event_data);
end);

function module.add_host(host_module)
	host_module:add_identity("server", "shard", shard);
	host_module:add_identity("server", "region", region);
end
