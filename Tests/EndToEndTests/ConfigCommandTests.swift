import Primitives
import TestSupport
import Testing

@Suite("Commands about a configuration")
struct ConfigCommandTests {
    private let text = """
        gateway: {port: "127.0.0.1:8080", adminToken: a-secret-to-hide}
        services:
          - {name: main, path: /, instances: ["http://127.0.0.1:PORT"]}
        rateLimit: {redisURL: "redis://:hunter22@127.0.0.1:REDIS"}
        """

    @Test("config show prints every setting, its value and where that comes from, secrets masked")
    func show() throws {
        let folder = try TemporaryDirectory()
        let path = try folder.write(
            text.replacing("PORT", with: "8081").replacing("REDIS", with: "6379"), to: "gateway.yaml")
        let arguments = ["config", "show", "--config", path, "--set", "gateway.drain.delay=1s"]
        let all = try runSluice(arguments)
        #expect(all.exit == 0, "\(all.errors)")
        let rows = all.output.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        #expect(rows.first == ["KEY", "VALUE", "ORIGIN"])
        #expect(rows.contains(["gateway.port", "127.0.0.1:8080", "\(path):1:17"]))
        #expect(rows.contains(["gateway.adminToken", "***", "\(path):1:47"]))
        #expect(rows.contains(["gateway.drain.delay", "1s", "--set"]))
        #expect(rows.contains(["services.main.timeouts.connect", "2s", "default"]))
        #expect(!all.output.contains("hunter22"))
        let changed = try runSluice(arguments + ["--changed"])
        #expect(!changed.output.contains(" default"))
        #expect(changed.output.contains("gateway.drain.delay"))
        let json = try runSluice(arguments + ["--json"])
        #expect(json.output.contains("\"key\" : \"gateway.drain.delay\""))
    }

    @Test("check looks at files, and with --network at Redis and backends, a line each")
    func check() throws {
        try Scene.play { scene in
            let redis = try scene.redis(["--requirepass", "hunter22"])
            let backend = try scene.backend(named: "one")
            let folder = try TemporaryDirectory()
            let port = try #require(backend.url.split(separator: ":").last)
            let fine = text.replacing("PORT", with: port).replacing("REDIS", with: "\(redis.port)")
            let path = try folder.write(fine, to: "gateway.yaml")
            let good = try runSluice(["check", "--config", path, "--network"])
            #expect(good.exit == 0, "\(good.output)")
            #expect(good.output.contains("ok   redis redis://"))
            #expect(good.output.contains("ok   backend main \(backend.url)\n"))
            let wrong = try folder.write(
                fine.replacing("hunter22", with: "wrong").replacing(
                    "\(port)\"]", with: "\(try scene.freePort().port)\"]"),
                to: "wrong.yaml")
            #expect(try runSluice(["check", "--config", wrong]).exit == 0)
            let bad = try runSluice(["check", "--config", wrong, "--network"])
            #expect(bad.exit == 1)
            #expect(bad.output.contains("FAIL redis redis://"))
            #expect(bad.output.split(separator: "\n").contains { $0.hasPrefix("FAIL backend main ") })
            // Who answers is not well yet: a probe is what a node would send.
            let sick = try scene.backend { exchange in
                let isWell = exchange.request.target == "/well" && exchange.request.value("X-Probe") == "1"
                try exchange.answer("ok", status: isWell ? "204 No Content" : "500 Oh")
                return .close
            }
            for (health, line) in [
                ("{path: /ill}", "FAIL backend main \(sick.url): GET /ill: status 500\n"),
                ("{path: /well, headers: {X-Probe: \"1\"}, expect: 204}", "ok   backend main \(sick.url)\n"),
                ("{type: tcp}", "ok   backend main \(sick.url)\n"),
                ("{active: false}", "ok   backend main \(sick.url)\n"),
            ] {
                let yaml = "services: [{name: main, path: /, instances: [\"\(sick.url)\"], health: \(health)}]\n"
                let probed = try runSluice([
                    "check", "--network", "--config", try folder.write(yaml, to: "probed.yaml"),
                ])
                #expect(probed.output.contains(line), "\(probed.output)")
                #expect(probed.exit == (line.hasPrefix("ok") ? 0 : 1))
            }
            for (url, word) in [(backend.url, "ok   "), ("http://127.0.0.1:\(try scene.freePort().port)", "FAIL ")] {
                let traced = try folder.write(fine + "\ntracing: {otlp: {endpoint: \"\(url)\"}}\n", to: "traced.yaml")
                let shown = try runSluice(["check", "--config", traced, "--network"])
                #expect(shown.output.contains("\(word)collector \(url)"), "\(shown.output)")
                #expect(shown.exit == (word == "ok   " ? 0 : 1))
            }
            let file = try runSluice(["check", "--config", path, "--set", "gateway.accessLog=/no/such/folder/log"])
            #expect(file.exit == 1)
            #expect(file.errors.contains("gateway.accessLog=…: /no/such/folder/log: No such file or directory"))
        }
    }

    @Test("check names every file that cannot be used, with its place and beside other errors")
    func files() throws {
        let folder = try TemporaryDirectory()
        let path = try folder.write(
            """
            gateway:
              accessLog: /no/a.log
              limits: {headerBytes: x}
            services:
              - {name: a, path: /, instances: [http://127.0.0.1:1], transforms: {maintenance: {file: /no.html}}}
            auth: {jwt: [{name: j, algorithms: [RS256], keyFile: /no.pem}, {name: k, algorithms: [RS256], jwksFile: /no.json}]}
            rateLimit: {redisURL: "rediss://127.0.0.1:1?ca=/no-ca.pem", decisionLog: /no/d.log}
            """, to: "gateway.yaml")
        let check = try runSluice(["check", "--config", path])
        #expect(check.exit == 1)
        let starts = [
            "2:14: gateway.accessLog: /no/a.log: No such file or directory; give a path that can be written",
            "3:25: gateway.limits.headerBytes: ",
            "5:90: services[0].transforms.maintenance.file: `/no.html`: there is no such file; give the path of one",
            "6:54: auth.jwt[0].keyFile: /no.pem cannot be read; give the path of a file",
            "6:105: auth.jwt[1].jwksFile: /no.json cannot be read; give the path of a file",
            "7:23: rateLimit.redisURL: /no-ca.pem: no certificates to trust: ",
            "7:74: rateLimit.decisionLog: /no/d.log: No such file or directory; give a path that can be written",
        ]
        let lines = check.errors.split(separator: "\n")
        #expect(lines.count == starts.count)
        for (line, start) in zip(lines, starts) { #expect(line.hasPrefix("\(path):\(start)"), "\(line)") }
    }
}
