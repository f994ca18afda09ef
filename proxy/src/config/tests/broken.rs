//! Broken configurations, and the exact words that each gets.

use super::*;

/// `(text, message)`; the text comes after [`MINIMAL`], which has 5 lines, unless it begins with `!`.
const CASES: &[(&str, &str)] = &[
    (
        "!",
        "c.toml: node.id is missing, expected a text such as \"proxy-us-1\", 1 to 63 of a-z 0-9 -, not at its ends\nc.toml: node.region is missing, expected a text such as \"us-phoenix-1\", 1 to 64 of A-Z a-z 0-9 . _ -\nc.toml: discovery.file is missing, expected the path of a discovery file, such as \"discovery.toml\"",
    ),
    (
        "![node]\nid = \"Proxy_1\"\nregion = \"us phoenix\"\n[discovery]\nfile = 3\n",
        "c.toml:2:6: node.id is \"Proxy_1\", expected a text such as \"proxy-us-1\", 1 to 63 of a-z 0-9 -, not at its ends\nc.toml:3:10: node.region is \"us phoenix\", expected a text such as \"us-phoenix-1\", 1 to 64 of A-Z a-z 0-9 . _ -\nc.toml:5:8: discovery.file is 3, expected the path of a discovery file, such as \"discovery.toml\"",
    ),
    ("![node\n", "c.toml:1:6: unclosed table, expected `]`"),
    (
        "!node = 1\ndiscovery = []\n",
        "c.toml:1:8: node is 1, expected a table, written as [node]\nc.toml: node.id is missing, expected a text such as \"proxy-us-1\", 1 to 63 of a-z 0-9 -, not at its ends\nc.toml: node.region is missing, expected a text such as \"us-phoenix-1\", 1 to 64 of A-Z a-z 0-9 . _ -\nc.toml:2:13: discovery is [], expected a table, written as [discovery]\nc.toml: discovery.file is missing, expected the path of a discovery file, such as \"discovery.toml\"",
    ),
    ("[node]\n", "c.toml:6:2: duplicate key"),
    (
        "[frontend]\nlisten = [\"0.0.0.0:80\"\nworkers = 2\n",
        "c.toml:8:1: missing comma between array elements, expected `,`",
    ),
    ("[frontent]\nlisten = []\n", "c.toml:6:2: unknown field frontent, did you mean frontend?"),
    (
        "[consul]\naddress = \"127.0.0.1:8500\"\n",
        "c.toml:6:1: consul is a table, expected no [consul] beside [discovery]: one of both says what there is",
    ),
    (
        "[frontend]\nlistn = [\"0.0.0.0:80\"]\nthreads = 2\n",
        "c.toml:7:1: unknown field frontend.listn, did you mean frontend.listen?\nc.toml:8:1: unknown field frontend.threads, expected one of listen, workers, backlog, max_connections, header_timeout, client_timeout, keepalive_timeout, client_fin, max_header_size, forwarded_proto, max_headers, trusted_proxies, forwarded_for, request_id, hsts, response_headers",
    ),
    ("[frontend]\nlisten = []\n", "c.toml:7:10: frontend.listen is [], expected at least one address"),
    (
        "[frontend]\nlisten = \"0.0.0.0:80\"\n",
        "c.toml:7:10: frontend.listen is \"0.0.0.0:80\", expected a list of addresses, in [ ]",
    ),
    (
        "[frontend]\nlisten = [\"0.0.0.0\", \"localhost:80\", \"0.0.0.0:0\", 80]\n",
        "c.toml:7:11: frontend.listen[0] is \"0.0.0.0\", expected an IP address and a port other than 0, such as \"0.0.0.0:80\" or \"[::]:80\"\nc.toml:7:22: frontend.listen[1] is \"localhost:80\", expected an IP address and a port other than 0, such as \"0.0.0.0:80\" or \"[::]:80\"\nc.toml:7:38: frontend.listen[2] is \"0.0.0.0:0\", expected an IP address and a port other than 0, such as \"0.0.0.0:80\" or \"[::]:80\"\nc.toml:7:51: frontend.listen[3] is 80, expected an IP address and a port other than 0, such as \"0.0.0.0:80\" or \"[::]:80\"",
    ),
    (
        "[frontend]\nlisten = [\"0.0.0.0:80\", \"127.0.0.1:80\"]\n",
        "c.toml:7:10: frontend.listen[1] is \"127.0.0.1:80\", expected an address that frontend.listen[0] (0.0.0.0:80) leaves free",
    ),
    (
        "[frontend]\nlisten = [\"0.0.0.0:80\", \"[::]:80\"]\n",
        "c.toml:7:10: frontend.listen[1] is \"[::]:80\", expected an address that frontend.listen[0] (0.0.0.0:80) leaves free",
    ),
    (
        "[frontend]\ntrusted_proxies = [\"10.0.0.1/8\", \"lb\", 1]\n",
        "c.toml:7:20: frontend.trusted_proxies[0] is \"10.0.0.1/8\", expected a range of addresses such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address (10.0.0.1/8 has bits beyond its prefix, the range begins at 10.0.0.0/8)\nc.toml:7:34: frontend.trusted_proxies[1] is \"lb\", expected a range of addresses such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address (\"lb\" is no IP address)\nc.toml:7:40: frontend.trusted_proxies[2] is 1, expected a range of addresses such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address",
    ),
    (
        "[frontend]\nforwarded_for = \"drop\"\nrequest_id = true\nhsts = \"63072000\"\n",
        "c.toml:7:17: frontend.forwarded_for is \"drop\", expected \"append\" or \"replace\"\nc.toml:8:14: frontend.request_id is true, expected \"off\" or \"make\" or \"accept\"\nc.toml:9:8: frontend.hsts is \"63072000\", expected \"off\" or a policy such as \"max-age=63072000; includeSubDomains\", which has max-age in seconds once, and perhaps includeSubDomains and preload",
    ),
    (
        "[[listeners]]\nname = \"lb\"\nlisten = [\"[::]:81\"]\naccept_proxy = \"required\"\n",
        "c.toml: frontend.trusted_proxies is [] (the default), expected the balancers before listener lb, which requires PROXY headers",
    ),
    (
        "[frontend]\nresponse_headers = [\"X-A\", \"Connection: close\"]\n",
        "c.toml:7:21: frontend.response_headers[0] is \"X-A\", expected a line \"Name: value\" of at most 4096 visible ASCII characters\nc.toml:7:28: frontend.response_headers[1] is \"Connection: close\", expected another header than connection, which belongs to the connection",
    ),
    (
        "[frontend]\nlisten = [\"0.0.0.0:8405\"]\n",
        "c.toml: admin[0] is \"127.0.0.1:8405\" (the default), expected an address that frontend.listen[0] (0.0.0.0:8405) leaves free",
    ),
    (
        "[frontend]\nworkers = 0\n",
        "c.toml:7:11: frontend.workers is 0, expected \"auto\" or an integer from 1 to 256",
    ),
    (
        "[frontend]\nworkers = \"all\"\n",
        "c.toml:7:11: frontend.workers is \"all\", expected \"auto\" or an integer from 1 to 256",
    ),
    (
        "[frontend]\nmax_connections = -1\nbacklog = 99999999999999999999\n",
        "c.toml:8:11: frontend.backlog is 99999999999999999999, expected an integer from 1 to 65535\nc.toml:7:19: frontend.max_connections is -1, expected an integer from 1 to 2000000",
    ),
    (
        "[frontend]\nheader_timeout = 10\n",
        "c.toml:7:18: frontend.header_timeout is 10, expected a duration such as \"10s\" (units ms, s, m, h, d) from 10ms to 1d",
    ),
    (
        "[frontend]\nheader_timeout = \"10\"\nclient_timeout = \"3 min\"\nkeepalive_timeout = \"0s\"\n",
        "c.toml:7:18: frontend.header_timeout is \"10\", expected a duration such as \"10s\" (units ms, s, m, h, d) from 10ms to 1d\nc.toml:8:18: frontend.client_timeout is \"3 min\", expected a duration such as \"10s\" (units ms, s, m, h, d) from 10ms to 1d\nc.toml:9:21: frontend.keepalive_timeout is \"0s\", expected a duration such as \"10s\" (units ms, s, m, h, d) from 10ms to 1d",
    ),
    (
        "[frontend]\nmax_header_size = \"16k\"\n",
        "c.toml:7:19: frontend.max_header_size is \"16k\", expected a size such as \"64KiB\" (units B, KiB, MiB, GiB) from 8KiB to 1MiB",
    ),
    (
        "[frontend]\nmax_header_size = \"4KiB\"\n",
        "c.toml:7:19: frontend.max_header_size is \"4KiB\", expected a size such as \"64KiB\" (units B, KiB, MiB, GiB) from 8KiB to 1MiB",
    ),
    (
        "[tls]\nmin_version = \"1.1\"\n",
        "c.toml:7:15: tls.min_version is \"1.1\", expected \"1.2\" or \"1.3\"\nc.toml:6:1: tls.directory is none (the default), expected the path of a folder with *.pem files of chain and key, such as \"/etc/shardgate/certs\", or [[tls.certificates]]",
    ),
    (
        "[tls]\ndirectory = \"lost\"\nticket_keys = \"pages\"\ncertificate = []\n",
        "c.toml:7:13: tls.directory is \"lost\", expected a readable folder (lost: No such file or directory (os error 2))\nc.toml:8:15: tls.ticket_keys is \"pages\", expected a readable file of at most 1MiB (pages: it is no regular file)\nc.toml:9:1: unknown field tls.certificate, did you mean tls.certificates?",
    ),
    (
        "[[tls.certificates]]\nkey = \"key.pem\"\n[[tls.certificates]]\ncert = \"lost.pem\"\nkey = 1\nname = \"a\"\n",
        "c.toml:6:1: tls.certificates[0].cert is missing, expected the path of a PEM file, such as \"/etc/shardgate/tls/example.com.pem\"\nc.toml:9:8: tls.certificates[1].cert is \"lost.pem\", expected a readable file of at most 1MiB (lost.pem: No such file or directory (os error 2))\nc.toml:10:7: tls.certificates[1].key is 1, expected the path of a PEM file, such as \"/etc/shardgate/tls/example.com.pem\"\nc.toml:11:1: unknown field tls.certificates[1].name, expected one of cert, key, ocsp",
    ),
    (
        "[backend]\nretries = 11\nbalance_factor = 1.5\n",
        "c.toml:7:11: backend.retries is 11, expected an integer from 0 to 10\nc.toml:8:18: backend.balance_factor is 1.5, expected an integer from 100 to 1000",
    ),
    (
        "[backend]\nprotocol = \"h2\"\nverify = false\nsend_proxy = \"v1\"\nclient_key = \"k.pem\"\nsni = \"10.0.0.1:80\"\n",
        "c.toml:7:12: backend.protocol is \"h2\", expected \"http\" or \"https\"\nc.toml:8:10: backend.verify is false, expected \"on\" or \"off\"\nc.toml:11:7: backend.sni is \"10.0.0.1:80\", expected a host name, such as \"shard.example.com\"\nc.toml:9:14: backend.send_proxy is \"v1\", expected \"off\" or \"v2\"\nc.toml:10:14: backend.client_key is \"k.pem\", expected nothing where protocol is not \"https\"\nc.toml:10:14: backend.client_key is \"k.pem\", expected nothing without client_cert",
    ),
    ("[backend]\nredispatch = true\n", "c.toml:7:14: backend.redispatch is true, expected \"on\" or \"off\""),
    (
        "[backend]\nmax_connections_per_shard = -1\nqueue_timeout = \"0s\"\n",
        "c.toml:7:29: backend.max_connections_per_shard is -1, expected an integer from 0 to 1000000\nc.toml:8:17: backend.queue_timeout is \"0s\", expected a duration such as \"10s\" (units ms, s, m, h, d) from 10ms to 1d",
    ),
    (
        "[limits]\nnew_key_rate = 1.5\nnew_key_burst = 0\nconnections_per_address = \"none\"\n",
        "c.toml:9:27: limits.connections_per_address is \"none\", expected an integer from 0 to 2000000\nc.toml:7:16: limits.new_key_rate is 1.5, expected an integer from 0 to 1000000\nc.toml:8:17: limits.new_key_burst is 0, expected an integer from 1 to 1000000",
    ),
    (
        "[limits]\nexempt = [\"10.0.0.1/8\", \"balancer\", \"10.0.0.0/33\", 7]\nmemory_max = \"85%\"\n",
        "c.toml:7:11: limits.exempt[0] is \"10.0.0.1/8\", expected a range of addresses such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address (10.0.0.1/8 has bits beyond its prefix, the range begins at 10.0.0.0/8)\nc.toml:7:25: limits.exempt[1] is \"balancer\", expected a range of addresses such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address (\"balancer\" is no IP address)\nc.toml:7:37: limits.exempt[2] is \"10.0.0.0/33\", expected a range of addresses such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address (\"33\" is no number of bits from 0 to 32)\nc.toml:7:52: limits.exempt[3] is 7, expected a range of addresses such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address\nc.toml:8:14: limits.memory_max is \"85%\", expected \"auto\", \"off\" or a size such as \"4GiB\" (units B, KiB, MiB, GiB) from 16MiB to 16384GiB",
    ),
    (
        "[limits]\nmemory_max = \"1MiB\"\n",
        "c.toml:7:14: limits.memory_max is \"1MiB\", expected \"auto\", \"off\" or a size such as \"4GiB\" (units B, KiB, MiB, GiB) from 16MiB to 16384GiB",
    ),
    (
        "[stick_table]\nexpire = \"2d\"\nsize = 0\n",
        "c.toml:7:10: stick_table.expire is \"2d\", expected a duration such as \"10s\" (units ms, s, m, h, d) from 500ms to 1d\nc.toml:8:8: stick_table.size is 0, expected an integer from 1 to 10000000",
    ),
    (
        "[mesh]\n",
        "c.toml:6:1: mesh.ca is missing, expected the path of a PEM file, as `shardgate pki` writes it\nc.toml:6:1: mesh.cert is missing, expected the path of a PEM file, as `shardgate pki` writes it\nc.toml:6:1: mesh.key is missing, expected the path of a PEM file, as `shardgate pki` writes it",
    ),
    (
        "[mesh]\nca = \"ca.pem\"\ncert = \"cert.pem\"\nkey = \"lost.pem\"\n",
        "c.toml:9:7: mesh.key is \"lost.pem\", expected a readable file of at most 1MiB (lost.pem: No such file or directory (os error 2))",
    ),
    (
        "[mesh]\nca = \"pages\"\ncert = \"cert.pem\"\nkey = \"\"\n",
        "c.toml:7:6: mesh.ca is \"pages\", expected a readable file of at most 1MiB (pages: it is no regular file)\nc.toml:9:7: mesh.key is \"\", expected the path of a PEM file, as `shardgate pki` writes it",
    ),
    (
        "[mesh]\nca = \"ca.pem\"\ncert = \"cert.pem\"\nkey = \"key.pem\"\nheartbeat = \"5s\"\nclaim_budget_min = \"2s\"\n",
        "c.toml:6:1: mesh.idle_timeout is 10s (the default), expected at least 15s, three times mesh.heartbeat, so that one lost packet is no lost peer\nc.toml:11:20: mesh.claim_budget_min is \"2s\", expected at most mesh.claim_budget_max, 1s",
    ),
    (
        "[routing]\nhealth = [\"\"]\nnot_group = [\"a/b\", \"c\"]\nservice_hosts = [\"a b\"]\n",
        "c.toml:8:14: routing.not_group[0] is \"a/b\", expected a folder's name, such as \"static\": 1 to 128 visible ASCII characters without / ? #\nc.toml:7:11: routing.health[0] is \"\", expected a part of a path, such as \"http-bind\" or \"/_health\": 1 to 128 visible ASCII characters without ? #\nc.toml:9:18: routing.service_hosts[0] is \"a b\", expected the beginning of a host name, such as \"signal-api-\": 1 to 128 of A-Z a-z 0-9 . -",
    ),
    (
        "[routing]\nroom_parameter = \"release\"\nstick_flag = \"stick\"\ndenied_referers = [\"a b\"]\n",
        "c.toml:9:20: routing.denied_referers[0] is \"a b\", expected a part of a referer, such as \"spam.example.com\": 1 to 128 visible ASCII characters\nc.toml:7:18: routing.room_parameter is \"release\", expected the name of a parameter, such as \"room\": 1 to 64 of A-Z a-z 0-9 . _ -, other than release\nc.toml:8:14: routing.stick_flag is \"stick\", expected a parameter and how its value begins, such as \"stick=true\": 3 to 64 of A-Z a-z 0-9 . _ - around one =",
    ),
    (
        "[routing]\nroom_parameter = \"ro om\"\nstick_flag = \"a=b=c\"\ndenied_user_agents = \"wordpress\"\n",
        "c.toml:9:22: routing.denied_user_agents is \"wordpress\", expected a list of parts of user agents, in [ ]\nc.toml:7:18: routing.room_parameter is \"ro om\", expected the name of a parameter, such as \"room\": 1 to 64 of A-Z a-z 0-9 . _ -, other than release\nc.toml:8:14: routing.stick_flag is \"a=b=c\", expected a parameter and how its value begins, such as \"stick=true\": 3 to 64 of A-Z a-z 0-9 . _ - around one =",
    ),
    (
        "[routing]\nnot_room_ends = LONG\n",
        "c.toml:7:17: routing.not_room_ends is [\"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\", \"x\",..., expected a list of at most 1000 entries",
    ),
    (
        "[routing]\nroom_suffixes = [\"x\"]\n",
        "c.toml:7:1: unknown field routing.room_suffixes, expected one of compat, denied_user_agents, denied_referers, room_parameter, stick_flag, region_order, not_group, health, not_room_ends, not_room_folders, not_room_tenant_folders, service_ends, service_hosts",
    ),
    (
        "[pages]\n404 = \"pages/404.html\"\n",
        "c.toml:7:1: unknown field pages.404, expected one of dir, 400, 403, 408, 429, 500, 502, 503, 504, maintenance, maintenance_retry_after",
    ),
    (
        "[pages]\n503 = \"large.html\"\n502 = \"lost.html\"\n",
        "c.toml:8:7: pages.502 is \"lost.html\", expected a readable file of at most 256KiB (lost.html: No such file or directory (os error 2))\nc.toml:7:7: pages.503 is \"large.html\", expected a readable file of at most 256KiB (large.html: it is larger)",
    ),
    (
        "[pages]\ndir = \"lost\"\n",
        "c.toml:7:7: pages.dir is \"lost\", expected the path of a folder that holds at least one of 400.html 403.html 408.html 429.html 500.html 502.html 503.html 504.html",
    ),
    (
        "[log]\nlevel = \"inof\"\naccess = true\n",
        "c.toml:8:10: log.access is true, expected \"off\", \"stdout\" or the path of a file\nc.toml:7:9: log.level is \"inof\", expected a level (off, error, warn, info, debug, trace) or levels per module, such as \"info,shardgate_peering=debug\"",
    ),
    (
        "[log]\nlevel = \"\"\n",
        "c.toml:7:9: log.level is \"\", expected a level (off, error, warn, info, debug, trace) or levels per module, such as \"info,shardgate_peering=debug\"",
    ),
    (
        "[admin]\nlisten = \"127.0.0.1:8405\"\n",
        "c.toml:6:1: admin is a table, expected a list of tables, each written as [[admin]]",
    ),
    (
        "[[admin]]\nlisten = \"127.0.0.1:8405\"\nserve = []\n[[admin]]\nserve = [\"stats\"]\n[[admin]]\nlisten = \"127.0.0.1:8406\"\n",
        "c.toml:8:9: admin[0].serve is [], expected at least one of \"health\", \"balancer\", \"metrics\", \"status\", \"admin\"\nc.toml:9:1: admin[1].listen is missing, expected an IP address and a port other than 0, such as \"127.0.0.1:8405\", or a unix socket, such as \"unix:/run/shardgate/admin.sock\"\nc.toml:10:10: admin[1].serve[0] is \"stats\", expected \"health\" or \"balancer\" or \"metrics\" or \"status\" or \"admin\"\nc.toml:11:1: admin[2].serve is missing, expected a list of \"health\", \"balancer\", \"metrics\", \"status\", \"admin\"",
    ),
    (
        "[[admin]]\nlisten = \"unix:/run/a.sock\"\nserve = [\"admin\"]\n[[admin]]\nlisten = \"unix:/run/a.sock\"\nserve = [\"status\"]\n",
        "c.toml:10:10: admin[1].listen is \"unix:/run/a.sock\", expected a path that admin[0].listen leaves free",
    ),
    (
        "[[admin]]\nlisten = \"127.0.0.1:8405\"\nserve = [\"status\", \"admin\"]\n[[admin]]\nlisten = \"unix:admin.sock\"\nserve = [\"admin\"]\n",
        "c.toml:8:9: admin[0].serve is [\"status\", \"admin\"], expected no \"admin\" on TCP without ca, cert and key: it takes orders from whoever connects; or a unix socket\nc.toml:10:10: admin[1].listen is \"unix:admin.sock\", expected an absolute path of at most 96 bytes, without control characters, after unix:",
    ),
    (
        "[[admin]]\nlisten = \"127.0.0.1:8405\"\nserve = [\"health\"]\n[[admin]]\nlisten = \"127.0.0.1:8405\"\nserve = [\"metrics\"]\n",
        "c.toml:10:10: admin[1].listen is \"127.0.0.1:8405\", expected an address that admin[0].listen (127.0.0.1:8405) leaves free",
    ),
    (
        "[shutdown]\ndrain = \"2d\"\ndrain_timeout = \"30s\"\n",
        "c.toml:7:9: shutdown.drain is \"2d\", expected a duration such as \"10s\" (units ms, s, m, h, d) from 0s to 1d\nc.toml:8:1: unknown field shutdown.drain_timeout, expected one of drain",
    ),
];

/// `(environment variable, its value)` or `("--set", its argument)`, and the message.
const OVERRIDES: &[(&str, &str, &str)] = &[
    (
        "SHARDGATE_NODE__REGIO",
        "r2",
        "environment variable SHARDGATE_NODE__REGIO: unknown field node.regio, did you mean node.region?",
    ),
    (
        "SHARDGATE_CONFIG__FILE",
        "/etc/shardgate.toml",
        "environment variable SHARDGATE_CONFIG__FILE: unknown field config, expected one of node, tls, listeners, frontend, backend, limits, stick_table, mesh, consul, discovery, routing, pools, pages, log, admin, shutdown",
    ),
    (
        "SHARDGATE_NODE____ID",
        "a2",
        "environment variable SHARDGATE_NODE____ID: expected SHARDGATE_SECTION__FIELD, such as SHARDGATE_NODE__REGION",
    ),
    (
        "SHARDGATE_FRONTEND__HEADER_TIMEOUT",
        "ten",
        "environment variable SHARDGATE_FRONTEND__HEADER_TIMEOUT: frontend.header_timeout is \"ten\", expected a duration such as \"10s\" (units ms, s, m, h, d) from 10ms to 1d",
    ),
    (
        "SHARDGATE_NODE__ID",
        "",
        "environment variable SHARDGATE_NODE__ID: node.id is \"\", expected a text such as \"proxy-us-1\", 1 to 63 of a-z 0-9 -, not at its ends",
    ),
    (
        "--set",
        "node.region",
        "--set node.region: expected section.field=value, such as node.region=us-phoenix-1",
    ),
    (
        "--set",
        ".region=r2",
        "--set .region=r2: expected section.field=value, such as node.region=us-phoenix-1",
    ),
    (
        "--set",
        "backend.retries=many",
        "--set backend.retries=many: backend.retries is \"many\", expected an integer from 0 to 10",
    ),
    (
        "--set",
        "node.id.x=1",
        "--set node.id.x=1: node.id is \"a1\", expected a table here; a list can only be replaced as a whole",
    ),
    (
        "--set",
        "admin=[{}]",
        "--set admin=[{}]: admin[0].listen is missing, expected an IP address and a port other than 0, such as \"127.0.0.1:8405\", or a unix socket, such as \"unix:/run/shardgate/admin.sock\"\n--set admin=[{}]: admin[0].serve is missing, expected a list of \"health\", \"balancer\", \"metrics\", \"status\", \"admin\"",
    ),
    (
        "--set",
        "mesh.ca=lost.pem",
        "--set mesh.ca=lost.pem: mesh.ca is \"lost.pem\", expected a readable file of at most 1MiB (lost.pem: No such file or directory (os error 2))\n--set mesh.ca=lost.pem: mesh.cert is missing, expected the path of a PEM file, as `shardgate pki` writes it\n--set mesh.ca=lost.pem: mesh.key is missing, expected the path of a PEM file, as `shardgate pki` writes it",
    ),
];

#[test]
fn every_broken_configuration_says_where_and_what() {
    assert!(CASES.len() >= 25);
    for (text, expected) in CASES {
        let text = text.strip_prefix('!').map_or_else(|| format!("{MINIMAL}{text}"), str::to_owned);
        let text = text.replace("LONG", &format!("[{}]", "'x',".repeat(1_001)));
        match Folder::with(&text).load(&[], &[]) {
            Ok(config) => panic!("accepted: {text}\n{config}"),
            Err(message) => assert_eq!(message, *expected, "\n{text}"),
        }
    }
}

#[test]
fn every_broken_override_says_where_and_what() {
    let folder = minimal();
    for (name, value, expected) in OVERRIDES {
        let loaded =
            if *name == "--set" { folder.load(&[], &[value]) } else { folder.load(&[(name, value)], &[]) };
        match loaded {
            Ok(config) => panic!("accepted: {name} {value}\n{config}"),
            Err(message) => assert_eq!(message, *expected, "\n{name} {value}"),
        }
    }
}

#[test]
fn what_is_no_text_file_is_refused() {
    let folder = Folder::with(b"# \xff\n");
    assert_eq!(
        folder.load(&[], &[]).unwrap_err(),
        "c.toml: is not UTF-8, expected a TOML file with the configuration"
    );
    fs::write(folder.path("c.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(
        folder.load(&[], &[]).unwrap_err(),
        "c.toml: is larger than 1 MiB, expected a TOML file with the configuration"
    );
    fs::remove_file(folder.path("c.toml")).unwrap();
    assert_eq!(
        folder.load(&[], &[]).unwrap_err(),
        "c.toml: cannot be read (No such file or directory (os error 2)), expected a TOML file with the configuration"
    );
    fs::create_dir(folder.path("c.toml")).unwrap();
    assert_eq!(
        folder.load(&[], &[]).unwrap_err(),
        "c.toml: is no regular file, expected a TOML file with the configuration"
    );
}
