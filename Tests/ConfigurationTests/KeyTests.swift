import Primitives
import Testing

@testable import Configuration

@Suite("Keys and their defaults")
struct KeyTests {
    @Test("what the file leaves out has the documented default")
    func defaults() throws {
        let configuration = try parse(file())
        let gateway = configuration.gateway
        #expect(gateway.port == ListenAddress(host: nil, port: 8080))
        #expect(gateway.timeout == .seconds(30))
        #expect(gateway.admin == nil)
        #expect(gateway.workers == .auto)
        #expect(gateway.accessLog == .standardOutput)
        #expect(gateway.accessLogFormat == .text)
        #expect(gateway.accessLogFields == [])
        #expect(gateway.requestID == nil)
        #expect(gateway.logFormat == .text)
        #expect(gateway.logLevel == .info)
        #expect(gateway.via == "sluice")
        #expect(gateway.trustedProxies == [])
        #expect(gateway.forwardedHeader == .xForwardedFor)
        #expect(!gateway.proxyProtocol)
        #expect(gateway.heartbeat == .milliseconds(500))
        #expect(gateway.drain.delay == .zero)
        #expect(gateway.drain.timeout == .seconds(30))
        let limits = gateway.limits
        #expect(limits.requestLineBytes == .kibibytes(8))
        #expect(limits.headerBytes == .kibibytes(32))
        #expect(limits.headerCount == 100)
        #expect(limits.bodyBytes == nil)
        #expect(limits.headerTimeout == .seconds(10))
        #expect(limits.bodyTimeout == .seconds(30))
        #expect(limits.minBodyRate == .bytes(240))
        #expect(limits.minReadRate == .bytes(240))
        #expect(limits.rateGrace == .seconds(30))
        #expect(limits.keepAliveTimeout == .seconds(3_600))
        #expect(limits.idleTimeout == .seconds(75))
        #expect(limits.requestsPerConnection == nil)
        #expect(limits.connections == nil)
        #expect(limits.connectionsPerClient == nil)
        #expect(configuration.rateLimit == nil)

        let service = configuration.services[0]
        #expect(service.stripPrefix)
        #expect(service.hostHeader == .client)
        #expect(service.methods == [])
        #expect(service.upgrades == ["websocket"])
        #expect(service.timeouts.connect == .seconds(2))
        #expect(service.timeouts.response == .seconds(30))
        #expect(service.timeouts.idle == .seconds(60))
        #expect(service.timeouts.tunnel == .seconds(3_600))
        #expect(service.timeouts.tunnelGrace == .seconds(30))
        #expect(
            service.retries
                == Configuration.Retries(attempts: 1, budgetPercent: 20, minimum: 10, within: .seconds(10)))
        #expect(service.limits.bodyBytes == nil)
        #expect(service.strategy == .roundRobin)
        #expect(service.hashOn == .client)
        #expect(service.leastConnections.scope == .node)
        #expect(service.pool == Configuration.Pool(idle: 64, connections: nil))
        #expect(service.circuitBreaker.failures == 5)
        #expect(service.circuitBreaker.openFor == .seconds(30))
        let health = service.health
        #expect(health.active)
        #expect(health.method == .get)
        #expect(health.path == "/health")
        #expect(health.expect.contains(200) && !health.expect.contains(204))
        #expect(health.interval == .seconds(30))
        #expect(health.warningInterval == .seconds(10))
        #expect(health.downInterval == .seconds(5))
        #expect(health.timeout == .seconds(5))
        #expect(health.failures == 3)
        #expect(health.successes == 3)
        #expect(health.quorum == .majority)
        #expect(health.cooldown == .seconds(10))
        #expect(health.type == .http)
        #expect(health.headers.isEmpty)
        #expect(health.expectBody == nil)
        #expect(health.cooldownMax == .seconds(300))
        #expect(health.maxEjected == 50)
        #expect(health.slowStart == .zero)
        #expect(health.failureShare == nil)
    }

    @Test("where all is well and it is looked at more often than by default, it is when something is amiss")
    func intervalsFollow() throws {
        for (given, warning, down) in [
            ("500ms", TimeSpan.milliseconds(500), TimeSpan.milliseconds(500)), ("7s", .seconds(7), .seconds(5)),
            ("60s", .seconds(10), .seconds(5)), ("1s, warningInterval: 3s", .seconds(3), .seconds(1)),
            ("1s, downInterval: 4s", .seconds(1), .seconds(4)),
        ] {
            let health = try parse(file(service: "    health: {interval: \(given)}")).services[0].health
            #expect(health.warningInterval == warning, "\(given)")
            #expect(health.downInterval == down, "\(given)")
        }
    }

    @Test("every key of the gateway reaches its property")
    func gatewayKeys() throws {
        let gateway = try parse(
            file(
                gateway: """
                      port: "[::1]:8443"
                      timeout: 1.5
                      admin: 127.0.0.1:9901
                      workers: 4
                      accessLog: /var/log/access.log
                      logFormat: json
                      logLevel: warning
                      via: edge-1
                      trustedProxies: [10.0.0.0/8, "2001:db8::/32", 192.0.2.7]
                      forwardedHeader: forwarded
                      proxyProtocol: true
                      heartbeat: 250ms
                      drain: {delay: 5s, timeout: 1m}
                      limits:
                        requestLineBytes: 4KiB
                        headerBytes: 64KB
                        headerCount: 50
                        bodyBytes: 10MiB
                        headerTimeout: 5s
                        bodyTimeout: 15s
                        minBodyRate: 1KiB
                        minReadRate: 0
                        rateGrace: 5s
                        keepAliveTimeout: 10m
                        idleTimeout: 2m
                        requestsPerConnection: 1000
                        connections: 20000
                        connectionsPerClient: 100
                    """)
        ).gateway
        #expect(gateway.port == ListenAddress(host: .v6Loopback, port: 8443))
        #expect(gateway.timeout == .milliseconds(1500))
        #expect(gateway.admin == ListenAddress(host: .v4Loopback, port: 9901))
        #expect(gateway.workers == .count(4))
        #expect(gateway.accessLog == .file(path: "/var/log/access.log"))
        #expect(gateway.logFormat == .json)
        #expect(gateway.logLevel == .warning)
        #expect(gateway.via == "edge-1")
        #expect(gateway.trustedProxies.map(\.description) == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"])
        #expect(gateway.forwardedHeader == .forwarded)
        #expect(gateway.proxyProtocol)
        #expect(gateway.heartbeat == .milliseconds(250))
        #expect(gateway.drain == Configuration.Drain(delay: .seconds(5), timeout: .seconds(60)))
        #expect(gateway.limits.requestLineBytes == .kibibytes(4))
        #expect(gateway.limits.headerBytes == .bytes(64_000))
        #expect(gateway.limits.headerCount == 50)
        #expect(gateway.limits.bodyBytes == .mebibytes(10))
        #expect(gateway.limits.headerTimeout == .seconds(5))
        #expect(gateway.limits.bodyTimeout == .seconds(15))
        #expect(gateway.limits.minBodyRate == .kibibytes(1))
        #expect(gateway.limits.minReadRate == nil)
        #expect(gateway.limits.rateGrace == .seconds(5))
        #expect(gateway.limits.keepAliveTimeout == .seconds(600))
        #expect(gateway.limits.idleTimeout == .seconds(120))
        #expect(gateway.limits.requestsPerConnection == 1000)
        #expect(gateway.limits.connections == 20_000)
        #expect(gateway.limits.connectionsPerClient == 100)
    }

    @Test("retries are a mapping, or a number of attempts", arguments: [("0", 0), ("2", 2), ("{attempts: 0}", 0)])
    func retries(text: String, attempts: Int) throws {
        let retries = try parse(file(service: "    retries: \(text)")).services[0].retries
        #expect(
            retries
                == Configuration.Retries(attempts: attempts, budgetPercent: 20, minimum: 10, within: .seconds(10)))
    }

    @Test("every key of a service reaches its property")
    func serviceKeys() throws {
        let service = try parse(
            """
            services:
              - name: orders.v2
                path: /api/orders/
                stripPrefix: false
                hostHeader: backend
                methods: [GET, M-SEARCH]
                upgrades: [WebSocket, my-protocol]
                timeouts: {connect: 100ms, response: 0, idle: 5m, tunnel: 2h, tunnelGrace: 0}
                retries: {attempts: 3, budget: 50%, minimum: 0, within: 2s}
                limits: {bodyBytes: 1MB}
                strategy: consistent_hash
                hashOn: header:X-Tenant
                pool: {idle: 8, connections: 32}
                instances:
                  - http://10.0.0.1:8081/base/
                  - {url: "http://[2001:db8::1]", weight: 3}
                health:
                  active: false
                  method: HEAD
                  path: /ready?deep=1
                  expect: [200, 204, 3xx]
                  interval: 10s
                  warningInterval: 3s
                  downInterval: 1s
                  timeout: 500ms
                  failures: 2
                  successes: 1
                  quorum: 2
                  cooldown: 20s
                circuitBreaker: {failures: 7, openFor: 1m}
            """
        ).services[0]
        #expect(service.name == "orders.v2")
        #expect(service.path == "/api/orders")
        #expect(!service.stripPrefix)
        #expect(service.hostHeader == .backend)
        #expect(service.methods == ["GET", "M-SEARCH"])
        #expect(service.upgrades == ["websocket", "my-protocol"])
        #expect(service.timeouts.connect == .milliseconds(100))
        #expect(service.timeouts.response == nil)
        #expect(service.timeouts.idle == .seconds(300))
        #expect(service.timeouts.tunnel == .seconds(7_200))
        #expect(service.timeouts.tunnelGrace == nil)
        #expect(
            service.retries
                == Configuration.Retries(attempts: 3, budgetPercent: 50, minimum: 0, within: .seconds(2)))
        #expect(service.limits.bodyBytes == .bytes(1_000_000))
        #expect(service.strategy == .consistentHash)
        #expect(service.hashOn == .header("x-tenant"))
        #expect(service.pool == Configuration.Pool(idle: 8, connections: 32))
        #expect(service.instances.map(\.url) == ["http://10.0.0.1:8081/base/", "http://[2001:db8::1]"])
        #expect(service.instances.map(\.authority) == ["10.0.0.1:8081", "[2001:db8::1]"])
        #expect(service.instances.map(\.basePath) == ["/base", ""])
        #expect(service.instances.map(\.weight) == [1, 3])
        #expect(!service.health.active)
        #expect(service.health.method == .head)
        #expect(service.health.path == "/ready?deep=1")
        #expect([200, 204, 300, 399].allSatisfy(service.health.expect.contains))
        #expect(![199, 201, 299, 400].contains(where: service.health.expect.contains))
        #expect(service.health.interval == .seconds(10))
        #expect(service.health.warningInterval == .seconds(3))
        #expect(service.health.downInterval == .seconds(1))
        #expect(service.health.timeout == .milliseconds(500))
        #expect(service.health.failures == 2)
        #expect(service.health.successes == 1)
        #expect(service.health.quorum == .count(2))
        #expect(service.health.cooldown == .seconds(20))
        #expect(service.circuitBreaker.failures == 7)
        #expect(service.circuitBreaker.openFor == .seconds(60))
    }

    @Test("every key of rateLimit reaches its property")
    func rateLimitKeys() throws {
        let rateLimit = try #require(
            try parse(
                file(
                    rateLimit: """
                          requestsPerSecond: 1000000000
                          burstSize: 5
                          redisURL: redis://redis:6380/2
                          timeout: 20ms
                          onRedisLoss: closed
                          decisionLog: ./decisions.log
                          policies: []
                        """)
            ).rateLimit)
        #expect(rateLimit.requestsPerSecond == 1_000_000_000)
        #expect(rateLimit.burstSize == 5)
        #expect(rateLimit.redisURL?.kind == .tcp(host: .name("redis"), port: 6380))
        #expect(rateLimit.redisURL?.database == 2)
        #expect(rateLimit.timeout == .milliseconds(20))
        #expect(rateLimit.onRedisLoss == .closed)
        #expect(rateLimit.decisionLog == "./decisions.log")
    }

    @Test("a burst that is not given is one second's requests")
    func burstDefault() throws {
        let rateLimit = try #require(try parse(file(rateLimit: "  requestsPerSecond: 40")).rateLimit)
        #expect(rateLimit.burstSize == 40)
        #expect(rateLimit.redisURL == nil)
        #expect(rateLimit.timeout == .milliseconds(50))
        #expect(rateLimit.onRedisLoss == .share)
        #expect(rateLimit.decisionLog == nil)
    }

    @Test("a section that only names the Redis limits nothing")
    func redisAlone() throws {
        let rateLimit = try #require(try parse(file(rateLimit: "  redisURL: redis://h")).rateLimit)
        #expect(rateLimit.requestsPerSecond == nil)
        #expect(rateLimit.burstSize == nil)
        #expect(rateLimit.redisURL != nil)
    }

    @Test("gateway.timeout and gateway.limits.bodyBytes are the defaults of every service")
    func inheritance() throws {
        let text = """
            gateway: {timeout: 7, limits: {bodyBytes: 5MiB}}
            services:
              - {name: a, path: /a, instances: [http://h:1]}
              - {name: b, path: /b, instances: [http://h:1], timeouts: {response: 1s}, limits: {bodyBytes: 0}}
            """
        let services = try parse(text).services
        #expect(services.map(\.timeouts.response) == [.seconds(7), .seconds(1)])
        #expect(services.map(\.limits.bodyBytes) == [.mebibytes(5), nil])
    }

    @Test("0 means no limit", arguments: ["0", "0s", "\"0\""])
    func zero(_ zero: String) throws {
        let limits = try parse(file(gateway: "  timeout: \(zero)\n  limits: {headerTimeout: \(zero)}")).gateway
        #expect(limits.timeout == nil)
        #expect(limits.limits.headerTimeout == nil)
    }

    @Test("the access log may be a mapping, and requests have names where that is wanted")
    func accessLog() throws {
        let log = try parse(
            file(gateway: "  accessLog: {path: ./a.log, format: json, fields: [time, status, header:X-A]}")
        ).gateway
        #expect(log.accessLog == .file(path: "./a.log"))
        #expect(log.accessLogFormat == .json && log.logFormat == .text)
        #expect(log.accessLogFields == [.named(.time), .named(.status), .header("X-A")])
        let plain = try parse(file(gateway: "  logFormat: json\n  accessLog: {fields: [status]}")).gateway
        #expect(plain.accessLog == .standardOutput)
        #expect(plain.accessLogFormat == .json)
        #expect(try parse(file(gateway: "  accessLog: {path: false}")).gateway.accessLog == .off)

        let standard = Configuration.RequestID(header: "X-Request-Id", accept: .all, respond: true)
        #expect(try parse(file(gateway: "  requestID: true")).gateway.requestID == standard)
        #expect(try parse(file(gateway: "  requestID: {}")).gateway.requestID == standard)
        #expect(try parse(file(gateway: "  requestID: false")).gateway.requestID == nil)
        #expect(
            try parse(file(gateway: "  requestID: {header: X-Trace, accept: trusted, respond: false}")).gateway
                .requestID
                == Configuration.RequestID(header: "X-Trace", accept: .trusted, respond: false))
    }

    @Test(
        "a share of traces is exact to a ten-thousandth of a percent",
        arguments: [
            ("0%", 0), ("100%", 1_000_000), ("10%", 100_000), ("0.1%", 1_000), ("0.0001%", 1), ("33.25%", 332_500),
            ("100.0%", 1_000_000),
        ])
    func share(text: String, millionths: Int) throws {
        let tracing = try #require(try parse(file() + "\ntracing: {sample: \(text)}").tracing)
        #expect(tracing.sample.millionths == millionths)
        #expect(try Configuration.TraceShare(parsing: tracing.sample.description) == tracing.sample)
    }

    @Test(
        "what is no share of traces",
        arguments: ["10", "%", "-1%", "101%", "100.0001%", "1.%", ".5%", "1.12345%", "1.-1%", "010%", "1e1%", "1,5%"])
    func noShare(text: String) {
        #expect(errors(file() + "\ntracing: {sample: \"\(text)\"}").count == 1)
    }

    @Test("traces are followed where the section is there, and spans go where it says")
    func tracing() throws {
        #expect(try parse(file()).tracing == nil)
        let plain = try #require(try parse(file() + "\ntracing: {}").tracing)
        #expect(plain == Configuration.Tracing(sample: .all, accept: .all, otlp: nil))
        let otlp = try #require(
            try parse(file() + "\ntracing: {otlp: {endpoint: 'http://[::1]', headers: {X-Key: a}}}").tracing?.otlp)
        #expect(otlp.endpoint.path == "/v1/traces" && otlp.endpoint.port == 4318)
        #expect(otlp.endpoint.authority == "[::1]:4318")
        #expect(otlp.headers == [Configuration.ProbeHeader(name: "x-key", value: "a")])
        #expect(otlp.serviceName == "sluice" && otlp.queue == 2_048)
        #expect(otlp.interval == .seconds(5) && otlp.timeout == .seconds(10))
    }

    @Test("the cluster's configuration leaves a node its own access log", arguments: ["accessLog: false", ""])
    func ownAccessLog(theirs: String) throws {
        let own = file(
            gateway: "  accessLog: {path: /a/it's $$x.log, format: json, fields: [time, header:X-A]}\n  port: :81")
        let source = ConfigurationSource(path: "f", overrides: [], environment: [:])
        let text = file(gateway: theirs.isEmpty ? "" : "  " + theirs)
        let merged = try source.parse(text, named: "theirs", over: own).gateway
        #expect(merged.accessLog == .file(path: "/a/it's $x.log"))
        #expect(merged.accessLogFormat == .json)
        #expect(merged.accessLogFields == [.named(.time), .header("X-A")])
        #expect(merged.port == ListenAddress(host: nil, port: 81))
    }

    @Test(
        "an empty section is as good as none",
        arguments: ["gateway:\n", "gateway: ~\n", "gateway: {}\n", "gateway: {limits: , drain: null}\n"])
    func emptySection(_ section: String) throws {
        #expect(try parse(section + file()) == parse(file()))
    }

    @Test(
        "one port on two addresses, and any free port twice, are fine",
        arguments: [("127.0.0.1:80", "127.0.0.2:80"), (":0", ":0"), ("127.0.0.1:80", "[::1]:80"), (":80", ":81")])
    func twoListeners(_ port: String, _ admin: String) throws {
        let gateway = try parse(
            file(gateway: "  port: \"\(port)\"\n  admin: \"\(admin)\"\n  adminToken: 0123456789abcdef")
        ).gateway
        #expect(gateway.port.description == port)
        #expect(gateway.admin?.description == admin)
    }

    @Test("an empty redisURL or admin is off")
    func emptyAddress() throws {
        let text = file(gateway: "  admin: \"\"", rateLimit: "  requestsPerSecond: 1\n  redisURL: \"\"")
        let configuration = try parse(text)
        #expect(configuration.gateway.admin == nil)
        #expect(configuration.rateLimit?.redisURL == nil)
    }

    @Test(
        "numbers and switches may stand in quotes",
        arguments: [
            ("timeout: \"30\"", "timeout: 30"), ("workers: '2'", "workers: 2"),
            ("accessLog: \"false\"", "accessLog: false"),
        ])
    func quotes(_ quoted: String, _ plain: String) throws {
        #expect(try parse(file(gateway: "  " + quoted)) == parse(file(gateway: "  " + plain)))
    }

    @Test(
        "what is hashed",
        arguments: [
            ("client", Configuration.HashOn.client), ("user", .user), ("path", .path),
            ("header:X-User", .header("x-user")),
            ("cookie:SID", .cookie("SID")),
        ])
    func hashOn(_ text: String, _ expected: Configuration.HashOn) throws {
        let service = "    strategy: consistent_hash\n    hashOn: \(text)"
        #expect(try parse(file(service: service)).services[0].hashOn == expected)
    }

    @Test("a pool of few connections keeps no more than those")
    func pool() throws {
        let pool = try parse(file(service: "    pool: {connections: 10}")).services[0].pool
        #expect(pool == Configuration.Pool(idle: 10, connections: 10))
    }

    @Test("an alias stands for what its anchor holds")
    func alias() throws {
        let text = """
            services:
              - {name: a, path: /a, instances: [http://h:1], health: &h {interval: 3s}}
              - {name: b, path: /b, instances: [http://h:1], health: *h}
            """
        #expect(try parse(text).services.map(\.health.interval) == [.seconds(3), .seconds(3)])
    }

    @Test("equal files are equal configurations, others are not")
    func equality() throws {
        #expect(try parse(file()) == parse("# a comment\n" + file()))
        #expect(try parse(file()) != parse(file(gateway: "  timeout: 31")))
    }
}
