import Testing

@testable import Configuration

@Suite("Settings and their origins")
struct SettingsTests {
    private func settings(_ text: String, _ overrides: [String] = []) throws -> [String: Setting] {
        let source = ConfigurationSource(path: "f", overrides: overrides, environment: ["PORT": "81"])
        return Dictionary(uniqueKeysWithValues: try source.settings(of: text).map { ($0.key, $0) })
    }

    @Test("each says what it is, and who has set it")
    func origins() throws {
        let all = try settings(
            """
            gateway:
              port: ":${PORT}"
            services:
              - name: users
                path: /users
                instances: [http://localhost:8081, {url: http://localhost:8082, weight: 3}]
                timeouts: {connect: 1s}
            """, ["services.users.strategy=least_connections", "gateway.drain.delay=5s"])
        func expect(_ key: String, _ value: String, _ origin: String) {
            #expect(all[key]?.value == value, "\(key)")
            #expect(all[key]?.origin.description == origin, "\(key)")
        }
        expect("gateway.port", ":81", "f:2:9")
        expect("gateway.timeout", "30s", "default")
        expect("gateway.admin", "none", "default")
        expect("gateway.accessLog", "true", "default")
        expect("gateway.limits.bodyBytes", "0", "default")
        expect("gateway.drain.delay", "5s", "--set")
        expect("gateway.trustedProxies", "[]", "default")
        expect("services.users.strategy", "least_connections", "--set")
        expect("services.users.timeouts.connect", "1s", "f:7:25")
        expect("services.users.timeouts.response", "30s", "default")
        expect("services.users.instances[1].weight", "3", "f:6:77")
        expect("services.users.health.maxEjected", "50%", "default")
        expect("services.users.health.quorum", "majority", "default")
        expect("services.users.health.expect", "200", "default")
        expect("services.users.health.headers", "{}", "default")
        // Sections that do nothing where they are absent.
        for key in [
            "auth", "tracing", "rateLimit", "services.users.transforms", "services.users.health.failureShare",
        ] {
            expect(key, "none", "default")
        }
    }

    @Test("what a node's own file says above the cluster's has its place there")
    func ownOrigins() throws {
        let own = """
            gateway:
              port: 127.0.0.1:81
              accessLog: {path: ./a.log}
            services: [{name: users, path: /, instances: [http://localhost:8081]}]
            """
        let theirs = """
            gateway: {port: ":1", timeout: 5s}
            services: [{name: users, path: /, instances: [http://localhost:8081]}]
            """
        let source = ConfigurationSource(
            path: "f", overrides: ["gateway.admin=127.0.0.1:9"], environment: [:])
        let all = Dictionary(
            uniqueKeysWithValues: try source.settings(of: theirs, named: "version 3", over: own).map {
                ($0.key, $0.origin.description)
            })
        #expect(all["gateway.port"] == "f:2:9")
        #expect(all["gateway.accessLog.path"] == "f:3:21")
        #expect(all["gateway.admin"] == "--set")
        #expect(all["gateway.timeout"] == "version 3:1:32")
    }

    @Test("what is wrong with a node's own file is said of its place, also beside the cluster's text")
    func ownErrors() throws {
        let services = "services: [{name: users, path: /, instances: [http://localhost:8081]}]\n"
        let source = ConfigurationSource(path: "f", overrides: [], environment: [:])
        #expect {
            try source.parse(
                services + "gateway: {timeout: 5s}\n", named: "version 3",
                over: services + "gateway: {accessLog: ./a.log}\n",
                examine: { _ in [Finding("gateway.accessLog", "no"), Finding("gateway.timeout", "too short")] })
        } throws: { error in
            (error as? ConfigurationErrors)?.errors.map(\.description) == [
                "version 3:2:20: gateway.timeout: too short", "f:2:22: gateway.accessLog: no",
            ]
        }
    }

    @Test("secrets are masked, wherever they stand")
    func secrets() throws {
        let all = try settings(
            """
            gateway: {adminToken: a-long-secret-word}
            services:
              - name: users
                path: /users
                instances: [http://localhost:8081]
                health: {headers: {Authorization: "Bearer of-bad-news", X-Plain: a}}
            rateLimit: {redisURL: "redis://me:hunter22@localhost:6379"}
            """)
        #expect(all["gateway.adminToken"]?.value == "***")
        #expect(all["services.users.health.headers.Authorization"]?.value == "***")
        #expect(all["services.users.health.headers.X-Plain"]?.value == "a")
        #expect(!all.values.contains { $0.value.contains("hunter22") || $0.value.contains("bad-news") })
    }
}
