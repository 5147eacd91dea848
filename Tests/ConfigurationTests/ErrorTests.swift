import Testing

@testable import Configuration

@Suite("Errors")
struct ErrorTests {
    @Test(
        "each mistake has its place, its key and its remedy",
        arguments: [
            // Unknown keys.
            Row(
                file(gateway: "  prot: 1"),
                "f:2:3: gateway.prot: unknown key (did you mean gateway.port?)"
            ),
            Row(
                file(gateway: "  log_level: info"),
                "f:2:3: gateway.log_level: unknown key (did you mean gateway.logLevel?)"
            ),
            Row(
                "ratelimit: {}\n" + file(),
                "f:1:1: ratelimit: unknown key (did you mean rateLimit?)"
            ),
            Row(
                file(gateway: "  drain: {after: 1s}"),
                "f:2:11: gateway.drain.after: unknown key; known here: delay, timeout"
            ),
            Row(
                file(service: "    health:\n      intervall: 3s"),
                "f:6:7: services[0].health.intervall: unknown key (did you mean services[0].health.interval?)"
            ),
            Row(
                file(gateway: "  <<: {timeout: 3}"),
                "f:2:3: gateway.`<<`: merge keys are not supported; write the keys out"
            ),
            Row(
                file(gateway: "  \"a b\\e\": 1"),
                """
                f:2:3: gateway.`a b\u{fffd}`: unknown key; known here: port, timeout, admin, adminToken, workers, logFormat, \
                accessLog, requestID, logLevel, via, trustedProxies, forwardedHeader, proxyProtocol, heartbeat, drain, watchConfig, limits
                """
            ),
            // Wrong types.
            Row("gateway: 3\n" + file(), "f:1:10: gateway: it must be a mapping of keys to values, not a single value"),
            Row("- a", "f:1:1: the file must be a mapping of keys to values, not a list"),
            Row("just text", "f:1:1: the file must be a mapping of keys to values, not a single value"),
            Row(
                file(gateway: "  port: [8080]"),
                "f:2:9: gateway.port: must be a single value, not a list"
            ),
            Row(
                file(gateway: "  trustedProxies: 10.0.0.0/8"),
                "f:2:19: gateway.trustedProxies: must be a list, not a single value; write [a, b]"
            ),
            Row(
                file(gateway: "  trustedProxies: [10.0.0.0/8, {a: 1}, 10.0.0.1/8]"),
                """
                f:2:32: gateway.trustedProxies[1]: must be a single value, not a mapping
                f:2:40: gateway.trustedProxies[2]: `10.0.0.1/8` has bits set behind the prefix; write the block's \
                first address
                """
            ),
            Row(
                file(gateway: "  trustedProxies: [localhost]"),
                """
                f:2:20: gateway.trustedProxies[0]: `localhost` is not a block of addresses; write one such as \
                10.0.0.0/8 or 2001:db8::/32
                """
            ),
            Row(
                file(gateway: "  proxyProtocol: true"),
                """
                f:2:18: gateway.proxyProtocol: is believed of trusted peers only; name them in gateway.trustedProxies
                """
            ),
            Row(
                file(gateway: "  proxyProtocol: on"),
                "f:2:18: gateway.proxyProtocol: `on` is not one of true, false (did you mean true?)"
            ),
            Row(
                file(gateway: "  forwardedHeader: forward"),
                """
                f:2:20: gateway.forwardedHeader: `forward` is not one of x-forwarded-for, forwarded (did you mean \
                forwarded?)
                """
            ),
            // Values.
            Row(
                file(gateway: "  workers: 0"),
                "f:2:12: gateway.workers: `0` is not a number of workers; write auto, or 1...1024"
            ),
            Row(
                file(gateway: "  accessLog: yes"),
                "f:2:14: gateway.accessLog: `yes` is neither true, false nor a path; write a path with a slash"
            ),
            Row(
                file(
                    gateway:
                        "  accessLog: {path: log, format: xml, fields: [stauts, \"header:a b\", header:Cookie], file: a}"
                ),
                """
                f:2:21: gateway.accessLog.path: `log` is neither true, false nor a path; write a path with a slash
                f:2:34: gateway.accessLog.format: `xml` is not one of text, json
                f:2:48: gateway.accessLog.fields[0]: `stauts` is not one of time, node, client, peer, request, method, \
                target, path, protocol, host, status, outcome, received, sent, microseconds, service, backend, \
                backendMicroseconds, retries, limit, policy, identity, user, org, tier, apiKey, requestID, traceID, spanID, \
                userAgent, referer, header:NAME (did you mean status?)
                f:2:56: gateway.accessLog.fields[1]: `a b` is not a token; use letters, digits and !#$%&'*+-.^_`|~
                f:2:70: gateway.accessLog.fields[2]: `header:Cookie` holds a secret, which must not stand in a log; \
                write identity for who asked
                f:2:86: gateway.accessLog.file: unknown key; known here: path, format, fields
                """
            ),
            Row(
                file(gateway: "  accessLog: {fields: [time, status, time]}"),
                "f:2:23: gateway.accessLog.fields: `time` is there twice; write it once"
            ),
            Row(
                file(gateway: "  accessLog: {fields: [header:X-A, header:x-a]}"),
                "f:2:23: gateway.accessLog.fields: `header:x-a` is there twice; write it once"
            ),
            Row(
                file(gateway: "  accessLog: {fields: [header:X-Key]}\n  requestID: {header: x-user}")
                    + "\nauth: {apiKeys: {header: X-Key, redis: false}, forward: {user: X-User}}",
                """
                f:2:23: gateway.accessLog.fields: `header:x-key` holds API keys, which must not stand in a log; write \
                apiKey for their names
                f:3:23: gateway.requestID.header: `x-user` is a name in the section auth already; write another
                """
            ),
            Row(
                file() + "\ntracing: {sample: 0.12345%, accept: some, otlp: {interval: 1ms, queue: 0}}",
                """
                f:5:19: tracing.sample: `0.12345%` is not a percentage; write one in 0%...100%, such as 10% or 0.1%
                f:5:37: tracing.accept: `some` is not one of all, trusted, none
                f:5:49: tracing.otlp.endpoint: missing; write one such as http://localhost:4318/v1/traces
                f:5:60: tracing.otlp.interval: `1ms` is out of range; write a duration in 10ms...5m
                f:5:72: tracing.otlp.queue: `0` is out of range; write a number in 1...100000
                """
            ),
            Row(
                file()
                    + "\ntracing: {otlp: {endpoint: 'https://c.example/v1/traces', headers: {Host: a, X: \"a\\nb\"}}}",
                """
                f:5:28: tracing.otlp.endpoint: `https://c.example/v1/traces`: spans are not sent over TLS; write http:// \
                and the address of a collector on this machine, which passes them on
                f:5:68: tracing.otlp.headers: `Host` is the exporter's own; remove it
                f:5:68: tracing.otlp.headers: the value of `X` must be one line of at most 1024 bytes
                """
            ),
            Row(
                file() + "\ntracing: {otlp: {endpoint: 'http://me:secret@c.example'}}",
                """
                f:5:28: tracing.otlp.endpoint: the endpoint can not hold a user or a password; write headers: \
                {Authorization: "Basic …"}
                """
            ),
            Row(
                file() + "\ntracing: {otlp: {endpoint: 'http://c.example/v1?a=b'}}",
                "f:5:28: tracing.otlp.endpoint: `http://c.example/v1?a=b` has a query or a fragment; remove it"
            ),
            Row(
                file(gateway: "  requestID: yes"),
                "f:2:14: gateway.requestID: `yes` is not one of true, false (did you mean true?)"
            ),
            Row(
                file(gateway: "  requestID: {header: Content-Length, accept: some, respond: 1}"),
                """
                f:2:23: gateway.requestID.header: `Content-Length` means something else; write a name such as X-Request-Id
                f:2:47: gateway.requestID.accept: `some` is not one of all, trusted, none
                f:2:62: gateway.requestID.respond: `1` is not one of true, false (did you mean true?)
                """
            ),
            Row(
                file(gateway: "  logLevel: warn"),
                "f:2:13: gateway.logLevel: `warn` is not one of trace, debug, info, notice, warning, error"
            ),
            Row(
                file(gateway: "  logLevel: eror"),
                """
                f:2:13: gateway.logLevel: `eror` is not one of trace, debug, info, notice, warning, error (did you \
                mean error?)
                """
            ),
            Row(
                file(gateway: "  via: a b"),
                "f:2:8: gateway.via: `a b` is not a token; use letters, digits and !#$%&'*+-.^_`|~"
            ),
            Row(
                file(gateway: "  heartbeat: 500"),
                "f:2:14: gateway.heartbeat: `500` has no unit; write 500s or 500ms"
            ),
            Row(
                file(gateway: "  heartbeat: 1ms"),
                "f:2:14: gateway.heartbeat: `1ms` is out of range; write a duration in 50ms...1m"
            ),
            Row(
                file(gateway: "  admin: :8080"),
                "f:2:10: gateway.admin: overlaps gateway.port, which is :8080; give it a port of its own"
            ),
            Row(
                file(gateway: "  port: 10.0.0.1:80\n  admin: 0.0.0.0:80"),
                "f:3:10: gateway.admin: overlaps gateway.port, which is 10.0.0.1:80; give it a port of its own"
            ),
            Row(
                file(gateway: "  limits: {headerBytes: 1B}"),
                "f:2:25: gateway.limits.headerBytes: `1B` is out of range; write a size in 16B...16MiB, or 0 for no limit"
            ),
            Row(
                file(service: "    stripPrefix: no"),
                "f:5:18: services[0].stripPrefix: `no` is not one of true, false (did you mean false?)"
            ),
            Row(
                file(service: "    strategy: round_robbin"),
                """
                f:5:15: services[0].strategy: `round_robbin` is not one of round_robin, weighted_round_robin, \
                least_connections, consistent_hash (did you mean round_robin?)
                """
            ),
            Row(
                file(service: "    methods: [get]"),
                "f:5:15: services[0].methods[0]: methods are case-sensitive; write GET"
            ),
            Row(
                file(service: "    methods: [GET, CONNECT]"),
                "f:5:20: services[0].methods[1]: `CONNECT` is not implemented; remove it"
            ),
            Row(
                file(service: "    upgrades: [h2c]"),
                "f:5:16: services[0].upgrades[0]: `h2c` would carry requests past the gateway; remove it"
            ),
            Row(
                file(service: "    retries: many"),
                "f:5:14: services[0].retries: `many` is not a whole number; write one in 0...10"
            ),
            Row(
                file(service: "    retries: {budget: 20}"),
                "f:5:23: services[0].retries.budget: `20` is not a share; write 0% to 100%, such as 20%"
            ),
            Row(
                file(service: "    retries: {budget: 101%}"),
                "f:5:23: services[0].retries.budget: `101%` is not a share; write 0% to 100%, such as 20%"
            ),
            Row(
                file(service: "    retries: {within: 0}"),
                "f:5:23: services[0].retries.within: `0` is out of range; write a duration in 1ms...1d"
            ),
            Row(
                file(service: "    retries: {attempt: 2}"),
                "f:5:15: services[0].retries.attempt: unknown key (did you mean services[0].retries.attempts?)"
            ),
            Row(
                file(service: "    health: {quorum: 0}"),
                "f:5:22: services[0].health.quorum: `0` is no quorum; write majority, any, or 1...1000 nodes"
            ),
            Row(
                file(service: "    health: {expect: []}"),
                "f:5:22: services[0].health.expect: an empty list; write at least one status, such as 200"
            ),
            Row(
                file(service: "    health: {expect: [200, 99]}"),
                """
                f:5:28: services[0].health.expect[1]: `99` is not a status; write a code in 200...599, or a class such \
                as 2xx
                """
            ),
            Row(
                file(service: "    health: {type: tcp, expectBody: x}"),
                "f:5:37: services[0].health.expectBody: has no effect with type: tcp, which only connects; remove it"
            ),
            Row(
                file(service: "    health: {method: HEAD, expectBody: x}"),
                """
                f:5:40: services[0].health.expectBody: an answer to HEAD has no body; write method: GET, or remove \
                this
                """
            ),
            Row(
                file(service: "    health: {headers: {Transfer-Encoding: chunked}}"),
                """
                f:5:23: services[0].health.headers: `Transfer-Encoding` belongs to the connection, and probes have no \
                body; remove it
                """
            ),
            Row(
                file(service: "    health: {headers: {X: \"a\\r\\nY: b\"}}"),
                "f:5:23: services[0].health.headers: the value of `X` must be one line of at most 1024 bytes"
            ),
            Row(
                file(service: "    health: {maxEjected: 0.5}"),
                "f:5:26: services[0].health.maxEjected: `0.5` is not a share; write one in 0%...100%"
            ),
            Row(
                file(service: "    health: {cooldown: 1m, cooldownMax: 2s}"),
                "f:5:41: services[0].health.cooldownMax: less than cooldown, which is 1m; write that or more"
            ),
            Row(
                file(service: "    health: {path: health}"),
                "f:5:20: services[0].health.path: `health` is not a path to ask for; write one such as /health"
            ),
            Row(
                file(rateLimit: "  requestsPerSecond: 0"),
                "f:6:22: rateLimit.requestsPerSecond: `0` is out of range; write a number in 1...1000000000"
            ),
            Row(
                file(rateLimit: "  requestsPerSecond: 010"),
                """
                f:6:22: rateLimit.requestsPerSecond: `010` starts with a zero, which some read as octal; write it \
                without
                """
            ),
            Row(
                file(rateLimit: "  requestsPerSecond: 1\n  policies: [{name: a}]"),
                """
                f:7:14: rateLimit.policies[0].limit: missing; write how many requests pass in a window, such as 100
                f:7:14: rateLimit.policies[0].window: missing; write a duration such as 1m
                """
            ),
            Row(
                file(rateLimit: "  policies: [{name: default, limit: 0, window: 50ms}]"),
                """
                f:6:21: rateLimit.policies[0].name: `default` is the policy of requestsPerSecond; write another name
                f:6:37: rateLimit.policies[0].limit: `0` is out of range; write a number in 1...1000000000
                f:6:48: rateLimit.policies[0].window: `50ms` is out of range; write a duration in 100ms...30d
                """
            ),
            Row(
                file(rateLimit: "  policies: [{name: a, limit: 1, window: 1s, key: apiKey}]"),
                """
                f:6:51: rateLimit.policies[0].key: policy `a` counts identities, and nobody is asked for one; add the section auth
                """
            ),
            Row(
                file(rateLimit: "  policies: [{name: a, limit: 1, window: 1s, key: adress}]"),
                "f:6:51: rateLimit.policies[0].key: `adress` is not one of ip, user, org, apiKey, service, global, header:NAME"
            ),
            Row(
                file(rateLimit: "  policies: [{name: a, limit: 1, window: 1s}, {name: a, limit: 2, window: 1s}]"),
                "f:6:54: rateLimit.policies[1].name: `a` is the name of rateLimit.policies[0] already; give it another"
            ),
            Row(
                file(rateLimit: "  policies: [{name: a, limit: 1, window: 1s, services: [nobody]}]"),
                "f:6:57: rateLimit.policies[0].services[0]: policy `a` covers `nobody`, which is no service"
            ),
            // One error in a policy hides none of the others.
            Row(
                file(
                    rateLimit: """
                          policies:
                            - {name: a, limit: 1, window: 1s}
                            - {name: a, limit: 0, window: 1s, key: user, services: [users, user]}
                            - {limit: 1, window: 1s, services: [nobody], tiers: {gold: 5}}
                        """),
                """
                f:8:14: rateLimit.policies[1].name: `a` is the name of rateLimit.policies[0] already; give it another
                f:8:24: rateLimit.policies[1].limit: `0` is out of range; write a number in 1...1000000000
                f:8:44: rateLimit.policies[1].key: policy `a` counts identities, and nobody is asked for one; add the section auth
                f:8:68: rateLimit.policies[1].services[1]: policy `a` covers `user`, which is no service (did you mean users?)
                f:9:7: rateLimit.policies[2].name: missing; write one such as login
                f:9:41: rateLimit.policies[2].services[0]: this policy covers `nobody`, which is no service
                f:9:64: rateLimit.policies[2].tiers.gold: this policy has tiers, and nobody is asked who they are; add the section auth
                """
            ),
            Row(
                file(
                    rateLimit: "  policies: ["
                        + (1...9).map { "{name: p\($0), limit: 1, window: 1s}" }.joined(separator: ", ") + "]"),
                "f:6:13: rateLimit.policies: 9 policies cover `users`; at most 8 can cover one"
            ),
            // Contradictions.
            Row(
                file(service: "    pool: {idle: 5, connections: 4}"),
                "f:5:18: services[0].pool.idle: more than connections, which is 4; write that or less"
            ),
            Row(
                file(rateLimit: "  burstSize: 3"),
                "f:6:14: rateLimit.burstSize: has no effect without requestsPerSecond; set that too, or remove this"
            ),
        ])
    func mistakes(_ row: Row) {
        #expect(errors(row.text).joined(separator: "\n") == row.expected)
    }

    @Test(
        "services contradict each other",
        arguments: [
            Row("services:", "f:1:10: services: missing; add at least one service with name, path and instances"),
            Row("services: []", "f:1:11: services: an empty list; add at least one service"),
            Row("{}", "f:1:1: services: missing; add at least one service with name, path and instances"),
            Row(
                "services: [{}]",
                """
                f:1:12: services[0].name: missing; write one such as user-service
                f:1:12: services[0].path: missing; write the prefix that it serves, such as /api/users
                f:1:12: services[0].instances: missing; list at least one URL, such as http://localhost:8081
                """
            ),
            Row(
                "services: [{name: a, path: /a, instances: []}]",
                "f:1:43: services[0].instances: an empty list; add at least one URL, such as http://localhost:8081"
            ),
            Row(
                """
                services:
                  - {name: a, path: /x, instances: [http://h:1]}
                  - {name: a, path: /x/, instances: [http://h:1]}
                """,
                """
                f:3:12: services[1].name: `a` is the name of services[0] already; give it another
                f:3:21: services[1].path: `/x` is the path of services[0] already; give it another
                """
            ),
            Row(
                "services: [{name: a, path: /a, instances: [http://h, {url: 'http://H:80/', weight: 2}]}]",
                """
                f:1:54: services[0].instances[1]: `http://H:80/` is the same backend as services[0].instances[0]; \
                remove one, or use a weight
                """
            ),
            Row(
                """
                services: [{name: a, path: /a, strategy: weighted_round_robin,
                  instances: [{url: http://h:1, weight: 65535}, {url: http://h:2, weight: 1}]}]
                """,
                """
                f:2:14: services[0].instances: the weights add up to 65536 after division by their common divisor; at \
                most 65535: use smaller weights in the same proportion
                """
            ),
            Row(
                "services: [{name: a, path: /a, instances: [{weight: 0}]}]",
                """
                f:1:44: services[0].instances[0].url: missing; write one such as http://localhost:8081
                f:1:53: services[0].instances[0].weight: `0` is out of range; write a number in 1...65535
                """
            ),
            Row(
                "services: [{name: '7', path: /a, instances: [http://h]}]",
                "f:1:19: services[0].name: `7` is a number, which --set would take for an index; add a letter"
            ),
            Row(
                "services: [{name: 'a b', path: /a, instances: [http://h]}]",
                "f:1:19: services[0].name: `a b` is not a name; use 1 to 128 letters, digits, `-`, `_` and `.`"
            ),
            Row("services: [3]", "f:1:12: services[0]: it must be a mapping of keys to values, not a single value"),
        ])
    func services(_ row: Row) {
        #expect(errors(row.text).joined(separator: "\n").hasPrefix(row.expected))
    }

    @Test("large weights in a simple proportion are fine")
    func weights() throws {
        let text = """
            services: [{name: a, path: /a, strategy: weighted_round_robin,
              instances: [{url: http://h:1, weight: 60000}, {url: http://h:2, weight: 30000}]}]
            """
        #expect(try parse(text).services[0].instances.map(\.weight) == [60_000, 30_000])
    }

    @Test("all errors come at once, in the order of the file")
    func allAtOnce() {
        let text = """
            gateway:
              port: eighty
              timeout: soon
              prot: 1
            services:
              - name: users
                path: users
                instances: [https://h]
              - path: /orders
                instances: []
            rateLimit: {requestsPerSecond: many}
            """
        #expect(
            errors(text) == [
                "f:2:9: gateway.port: `eighty` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080",
                "f:3:12: gateway.timeout: `soon` is not a duration; write a number and a unit, such as 500ms, 30s, 5m or 1h",
                "f:4:3: gateway.prot: unknown key (did you mean gateway.port?)",
                "f:7:11: services[0].path: `users` does not start with a slash; write one such as /api",
                "f:8:17: services[0].instances[0]: `https://h`: TLS to backends does not exist yet; write http://",
                "f:9:5: services[1].name: missing; write one such as user-service",
                "f:10:16: services[1].instances: an empty list; add at least one URL, such as http://localhost:8081",
                "f:11:32: rateLimit.requestsPerSecond: `many` is not a whole number; write one in 1...1000000000",
            ])
    }

    @Test(
        "what is no YAML says where",
        arguments: [
            Row(
                "a: [1",
                "f:2:1: not valid YAML: did not find expected ',' or ']' (while parsing a flow sequence from line 1)"
            ),
            Row("a: b: c", "f:1:5: not valid YAML: mapping values are not allowed in this context"),
            Row(
                "a: 'x",
                "f:1:6: not valid YAML: found unexpected end of stream (while scanning a quoted scalar from line 1)"
            ),
            Row("a: *b", "f:1:4: not valid YAML: found undefined alias"),
            Row("a: 1\n--- \nb: 2", "f:2:1: not valid YAML: but found another document"),
            Row("a: 1\na: 2", "f:1:1: `a` stands again below in this mapping; keep one"),
            Row("? [a]\n: 1", "f:1:3: a key must be a name, not a list or a mapping"),
            Row("a: \"x\u{1}\"", "f:1:6: the character U+0001 is not allowed in YAML"),
            Row("a: 1\n\tb: 2", "f:2:1: not valid YAML: found a tab character that violates indentation"),
            Row("", "f:1:1: the file is empty; it needs at least one service"),
            Row("a: !secret x", "f:1:4: the YAML tag `!secret` means nothing here; remove it"),
            Row("# nothing\n", "f:1:1: the file is empty; it needs at least one service"),
        ])
    func syntax(_ row: Row) {
        #expect(errors(row.text).joined(separator: "\n").hasPrefix(row.expected), "\(errors(row.text))")
    }

    @Test("keys that stand twice hide no other error, nor what they hold")
    func repeatedKeys() {
        let text = """
            gateway: {port: ":1", prot: 2}
            services:
              - {name: a, path: b, instances: [], path: /c}
            "gateway": {timeout: x, port: ":2"}
            rateLimit: {burstSize: 1, burstSize: 2, burstSize: 3}
            """
        #expect(
            errors(text) == [
                "f:1:1: `gateway` stands again below in this mapping; keep one",
                "f:1:23: gateway.prot: unknown key (did you mean gateway.port?)",
                "f:3:15: `path` stands again below in this mapping; keep one",
                "f:3:35: services[0].instances: an empty list; add at least one URL, such as http://localhost:8081",
                "f:4:22: gateway.timeout: `x` is not a duration; write a number and a unit, such as 500ms, 30s, 5m or 1h",
                "f:5:13: `burstSize` stands again below in this mapping; keep one",
                "f:5:27: `burstSize` stands again below in this mapping; keep one",
                "f:5:52: rateLimit.burstSize: has no effect without requestsPerSecond; set that too, or remove this",
            ])
        #expect(
            errors("a: {b: 1, c: 2, \"b\": 3, c: 4}").filter { $0.contains("stands") } == [
                "f:1:5: `b` stands again below in this mapping; keep one",
                "f:1:11: `c` stands again below in this mapping; keep one",
            ])
        // A key that is spelt in another way than it reads ends the search.
        #expect(errors("{\"\\x61\": 1, a: 2}\nb: 3").count == 1)
    }

    @Test("what stands in a misspelt section is checked as what was meant")
    func misspeltSections() {
        let text = """
            gatewai: {prot: 1, limitz: {headerBytes: x}}
            servics:
              - {name: a, path: /a, instances: ["http://h:1"], helth: {interval: 1}}
            ratelimit: {requestPerSecond: 1}
            rate_limit: {burstSize: x}
            """
        #expect(
            errors(text) == [
                "f:1:1: gatewai: unknown key (did you mean gateway?)",
                "f:1:11: gateway.prot: unknown key (did you mean gateway.port?)",
                "f:1:20: gateway.limitz: unknown key (did you mean gateway.limits?)",
                "f:1:42: gateway.limits.headerBytes: `x` is not a size; write bytes, or a number and a unit, such as 64KiB, 1MiB or 10MB",
                "f:2:1: servics: unknown key (did you mean services?)",
                "f:3:52: services[0].helth: unknown key (did you mean services[0].health?)",
                "f:3:70: services[0].health.interval: `1` has no unit; write 1s or 1ms",
                "f:4:1: ratelimit: unknown key (did you mean rateLimit?)",
                "f:4:13: rateLimit.requestPerSecond: unknown key (did you mean rateLimit.requestsPerSecond?)",
                "f:5:1: rate_limit: unknown key (did you mean rateLimit?)",
            ])
    }

    @Test("columns count characters, not bytes")
    func columns() {
        #expect(errors("{\"ä€😀\": 1, x: 2}").map { String($0.prefix(8)) } == ["f:1:1: s", "f:1:2: `", "f:1:12: "])
    }

    @Test("a screen of errors is enough")
    func manyErrors() throws {
        let keys = (0..<250).map { "key\($0): 1" }.joined(separator: "\n")
        let thrown = try #require(throws: ConfigurationErrors.self) { try parse(keys) }
        #expect(thrown.errors.count == 100)
        #expect(thrown.omitted == 151)
        #expect(thrown.description.hasSuffix("\nand 151 more"))
    }

    @Test("keys of other strategies may stand beside the one in use, so that changing it is one word")
    func dormantKeys() {
        #expect(errors(file(service: "    hashOn: path")) == [])
        #expect(errors(file(service: "    leastConnections: {scope: cluster}")) == [])
        #expect(
            errors("services: [{name: a, path: /a, instances: [{url: http://h:1, weight: 2}, http://h:2]}]") == [])
    }
}
