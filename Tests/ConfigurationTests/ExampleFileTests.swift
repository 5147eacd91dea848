import Foundation
import Primitives
import Testing

@testable import Configuration

/// Files that people copy have to load.
@Suite("The example files")
struct ExampleFileTests {
    private static let configs = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("configs")

    private static let secrets = ["SLUICE_REDIS_PASSWORD": "pw", "SLUICE_ADMIN_TOKEN": "token-of-the-operators"]

    private func load(
        _ name: String, environment: [String: String] = [:]
    ) throws(ConfigurationErrors) -> Configuration {
        try Configuration.load(path: Self.configs.appendingPathComponent(name).path, environment: environment)
    }

    @Test("the minimal file names nothing but a service and its backend")
    func minimal() throws {
        let configuration = try load("minimal.yaml")
        #expect(configuration.gateway.port == ListenAddress(host: nil, port: 8080))
        #expect(configuration.services.map(\.path) == ["/"])
        #expect(configuration.services[0].instances.map(\.port) == [3000])
        #expect(configuration.rateLimit == nil)
    }

    @Test("the production file loads with its secrets, and its values fit together")
    func production() throws {
        let configuration = try load("production.yaml", environment: Self.secrets)
        let drain = configuration.gateway.drain
        #expect(configuration.gateway.admin?.description == "127.0.0.1:9901")
        #expect(configuration.gateway.adminToken == Self.secrets["SLUICE_ADMIN_TOKEN"])
        #expect(configuration.services.map(\.name) == ["api", "uploads", "live"])
        // Work in flight at SIGTERM may finish, in every service.
        for service in configuration.services {
            #expect(try #require(service.timeouts.response) <= drain.timeout)
            #expect(try #require(service.timeouts.tunnelGrace) <= drain.timeout)
        }
        // The unit of systemd waits that long; see configs/systemd/sluice.service.
        #expect(drain.delay + drain.timeout <= .seconds(120))
        let policies = try #require(configuration.rateLimit).policies
        #expect(policies.map(\.name) == ["per-client", "uploads", "tunnels", "api-total"])
    }

    @Test("the production file does not load without its secrets", arguments: secrets.keys.sorted())
    func secret(missing: String) throws {
        var environment = Self.secrets
        environment[missing] = nil
        do throws(ConfigurationErrors) {
            _ = try load("production.yaml", environment: environment)
            Issue.record("it loads without \(missing)")
        } catch {
            #expect(error.description.contains(missing))
        }
    }

    /// Whatever stands in `${…}` without a default is given a value that does for secrets.
    @Test("every file in configs loads")
    func every() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: Self.configs.path)
            .filter { $0.hasSuffix(".yaml") }
        #expect(names.contains("gateway.yaml") && names.contains("policies.yaml"))
        for name in names {
            let text = try String(contentsOf: Self.configs.appendingPathComponent(name), encoding: .utf8)
            let variables = text.matches(of: /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/).map { String($0.1) }
            let environment = Dictionary(variables.map { ($0, "0123456789abcdef0123456789abcdef") }) { first, _ in first
            }
            do throws(ConfigurationErrors) {
                _ = try load(name, environment: environment)
            } catch {
                Issue.record("\(error)")
            }
        }
    }
}

@Suite("Examples in the documents")
struct DocumentedExampleTests {
    private static let docs = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("docs")

    /// The parts of a file that a document shows.
    private static func examples(_ name: String) throws -> [String] {
        let text = try String(contentsOf: docs.appendingPathComponent(name), encoding: .utf8)
        return text.components(separatedBy: "```yaml\n").dropFirst().compactMap {
            $0.components(separatedBy: "\n```").first
        }
    }

    @Test("they load beside a service", arguments: ["access-log.md", "tracing.md"])
    func load(name: String) throws {
        let examples = try Self.examples(name)
        #expect(!examples.isEmpty)
        for example in examples { #expect(errors(example + "\n" + file()) == [], "\(example)") }
    }
}
