import Primitives
import Testing

@testable import Configuration

@Suite("Overrides")
struct OverrideTests {
    static let text = """
        gateway: {port: ":1", timeout: 30}
        services:
          - {name: user-service, path: /a, instances: [http://h:1, {url: http://h:2}]}
          - {name: a.b, path: /b, instances: [http://h:3]}
        rateLimit:
        """

    @Test("an override wins over the file, a later one over an earlier one")
    func wins() throws {
        let overrides = ["gateway.port=:2", "gateway.port=127.0.0.2:8080"]
        let configuration = try parse(Self.text, overrides)
        #expect(configuration.gateway.port == ListenAddress(host: IPAddress("127.0.0.2"), port: 8080))
        #expect(configuration.gateway.timeout == .seconds(30))
    }

    @Test(
        "elements by index and by name",
        arguments: [
            "services.0.strategy=least_connections", "services[0].strategy=least_connections",
            "services.user-service.strategy=least_connections", "services[user-service].strategy=least_connections",
            "services[0].strategy=\"least_connections\"",
        ])
    func elements(_ override: String) throws {
        let services = try parse(Self.text, [override]).services
        #expect(services.map(\.strategy) == [.leastConnections, .roundRobin])
    }

    @Test("elements of a list that is empty, or nowhere, are numbered from 0")
    func newLists() throws {
        let overrides = ["gateway.trustedProxies.0=10.0.0.0/8", "gateway.trustedProxies[1]=127.0.0.1/32"]
        for text in [Self.text, Self.text.replacing("timeout: 30", with: "trustedProxies: []")] {
            #expect(try parse(text, overrides).gateway.trustedProxies.count == 2)
            #expect(errors(text, ["gateway.trustedProxies.1=10.0.0.0/8"]).count == 1)
        }
        let health = try parse(Self.text, ["services[a.b].health.expect.0=204"]).services[1].health
        #expect(health.expect.contains(204) && !health.expect.contains(200))
    }

    @Test("a file that is no mapping is the only error", arguments: ["a", "[a]"])
    func noMapping(text: String) {
        #expect(errors(text, ["gateway.via=a"]).map { $0.prefix(34) } == ["f:1:1: the file must be a mapping "])
    }

    @Test("a name with a dot stands in brackets")
    func dottedName() throws {
        let services = try parse(Self.text, ["services[a.b].path=/c"]).services
        #expect(services.map(\.path) == ["/a", "/c"])
    }

    @Test("values are YAML: lists, mappings, empty ones, or text that is no YAML")
    func values() throws {
        let overrides = [
            "gateway.trustedProxies=[127.0.0.0/8, 10.0.0.0/8]", "gateway.drain={delay: 1s}",
            "gateway.admin=[::1]:99", "gateway.timeout=", "rateLimit.requestsPerSecond=5",
            "rateLimit.redisURL=redis://:p#1=2@h:1/3", "services[1].instances[0]={url: http://h:9, weight: 3}",
        ]
        // A "#" inside a word is no comment, but in a URL it begins a fragment.
        #expect(
            errors(Self.text, overrides) == [
                "--set rateLimit.redisURL=…: a `#` in a password must be written %23; otherwise remove it"
            ])
        var right = overrides
        right[5] = "rateLimit.redisURL=redis://:p%231=2@h:1/3"
        let configuration = try parse(Self.text, right)
        #expect(configuration.gateway.trustedProxies.count == 2)
        #expect(configuration.gateway.drain.delay == .seconds(1))
        #expect(configuration.gateway.admin == ListenAddress(host: .v6Loopback, port: 99))
        #expect(configuration.gateway.timeout == .seconds(30))
        #expect(configuration.rateLimit?.requestsPerSecond == 5)
        #expect(configuration.rateLimit?.redisURL?.password == "p#1=2")
        #expect(configuration.services[1].instances[0].port == 9)
        #expect(configuration.services[1].instances[0].weight == 3)
    }

    @Test(
        "errors name the override and never show its value",
        arguments: [
            Row("gateway.prot=1", "--set gateway.prot=…: unknown key (did you mean gateway.port?)"),
            Row("gatway.port=1", "--set gatway.port=…: gatway: unknown key (did you mean gateway?)"),
            Row("gateway={prot: 1}", "--set gateway=…: gateway.prot: unknown key (did you mean gateway.port?)"),
            Row(
                "gateway.port=x",
                "--set gateway.port=…: `x` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080"
            ),
            Row(
                "gateway.port.x=1",
                "--set gateway.port.x=…: gateway.port is a single value and has no `x`; set gateway.port as a whole"
            ),
            Row(
                "services.2.path=/x", "--set services.2.path=…: services has 2 elements, counted from 0; there is no 2"),
            Row(
                "services.user-servic.path=/x",
                "--set services.user-servic.path=…: services has no element `user-servic` (did you mean services.user-service?)"
            ),
            Row(
                "services.user-service.strateg=x",
                "--set services.user-service.strateg=…: unknown key (did you mean services[0].strategy?)"
            ),
            Row(
                "services.0.instances.0.weight=2",
                "--set services.0.instances.0.weight=…: services[0].instances[0] is a single value and has no `weight`; set services[0].instances[0] as a whole"
            ),
            Row(
                "rateLimit.redisURL=redis://:secret@",
                "--set rateLimit.redisURL=…: the host is neither a name nor an address; write one such as localhost or 10.0.0.7"
            ),
            Row(
                "gateway.port",
                "--set gateway.port=…: no `=`; write --set KEY=VALUE, such as --set gateway.port=127.0.0.1:8080"
            ),
            Row("=1", "--set =…: no key of this form; write names joined by dots, such as services[0].strategy"),
            Row(
                "a..b=1", "--set a..b=…: no key of this form; write names joined by dots, such as services[0].strategy"),
            Row("a[=1", "--set a[=…: no key of this form; write names joined by dots, such as services[0].strategy"),
            Row("a[]=1", "--set a[]=…: no key of this form; write names joined by dots, such as services[0].strategy"),
            Row(
                "a[0]b=1",
                "--set a[0]b=…: no key of this form; write names joined by dots, such as services[0].strategy"),
            Row("[0]=1", "--set [0]=…: no key of this form; write names joined by dots, such as services[0].strategy"),
            Row(
                "a.[0]=1",
                "--set a.[0]=…: no key of this form; write names joined by dots, such as services[0].strategy"),
            Row("a.=1", "--set a.=…: no key of this form; write names joined by dots, such as services[0].strategy"),
            Row(
                "a\u{1b}b=1",
                "--set a\u{fffd}b=…: `a\u{fffd}b`: unknown key; known here: gateway, auth, rateLimit, tracing, config, services"
            ),
            Row("gateway.via=a\u{1}", "--set gateway.via=…: the character U+0001 is not allowed in YAML"),
        ])
    func mistakes(_ row: Row) {
        #expect(errors(Self.text, [row.text]) == [row.expected])
    }

    @Test("errors of the file and of overrides come together")
    func together() {
        let found = errors(Self.text + " 3", ["nonsense", "gateway.prot=1", "services.7.path=/"])
        #expect(
            found.map { String($0.prefix(19)) } == [
                "f:5:12: rateLimit: ", "--set gateway.prot=", "--set nonsense=…: n", "--set services.7.pa",
            ])
    }
}
