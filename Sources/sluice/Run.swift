import Admin
import ArgumentParser
import Configuration
import EventLoop
import FoundationEssentials
import Gateway
import LinuxIO
import Logging
import Membership
import Primitives
import Supervision

/// What every command that reads a configuration takes.
struct ConfigurationOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "The configuration, a YAML file.")
    var config: String

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp(
            "Sets a key of the configuration, before what the file says: gateway.port=127.0.0.2:8080. May be repeated.",
            discussion: "Elements of lists are named by number or by name: services.0.strategy=least_connections.",
            valueName: "key=value"))
    var overrides: [String] = []

    var source: ConfigurationSource {
        ConfigurationSource(path: config, overrides: overrides, environment: ProcessInfo.processInfo.environment)
    }

    /// - Parameters:
    ///   - examine: what else is wrong with it here.
    ///   - say: hears the errors.
    func load(
        examine: (Configuration) -> [Finding] = { _ in [] }, say: (String) -> Void = printError
    ) throws -> (Configuration, text: String) {
        do throws(ConfigurationErrors) {
            let text = try source.read()
            return (try source.parse(text, examine: examine), text)
        } catch {
            say(error.description)
            throw ExitCode(1)
        }
    }

    /// What a process starts with that takes the place of a crashed one: the file, or, where that is of no use by now, the
    /// configuration that was in force; and what is wrong with the file then.
    func load(
        keeping kept: KeptConfiguration
    ) throws(ConfigurationErrors) -> (configuration: Configuration, text: String, problems: [String]) {
        var problems = ["the process that was started with \(config) did not come to serve"]
        if !kept.isOnly {
            do throws(ConfigurationErrors) {
                let text = try source.read()
                return (try source.parse(text, examine: Node.problems), text, [])
            } catch {
                problems = error.description.split(separator: "\n").map(String.init)
            }
        }
        return (try source.parse(kept.text), kept.text, problems)
    }
}

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run a node until SIGTERM or SIGINT.")

    @OptionGroup var options: ConfigurationOptions

    @Option(
        help: ArgumentHelp(
            "The name of this node in the cluster: letters, digits, '.', '_' and '-', at most 64. Default: host name and port.",
            valueName: "id"))
    var nodeID: String?

    @Flag(
        inversion: .prefixedNo,
        help: ArgumentHelp(
            "Keep a parent process that restarts a crashed node and lets a new binary take over. Default: yes as the first process of a container and under systemd."
        ))
    var supervise: Bool?

    func run() throws {
        Processes.reportCrashes()
        defer { EventLog.standardError.close() }
        let environment = Processes.environment
        let parent = ParentLink(environment: environment)
        if isSupervisor(parent) { return try superviseNode() }
        // A supervisor starts it as /proc/self/exe, and `exe` is no name to look for.
        OSThread.nameThis("sluice")
        Signals.block(NodeSignals.all)
        let (own, text, problems) = try load(environment, parent)
        EventLog.standardError.follow(own.gateway)
        let (source, logger) = (options.source, LineLog.logger())
        let (configuration, followed) = Node.beginning(own, text: text, source, logger)
        let gateway = configuration.gateway
        EventLog.standardError.follow(gateway)
        do {
            let id = try nodeID.map { try NodeID($0) } ?? Self.defaultID(gateway.port)
            let lifecycle = Lifecycle(version: version, parent: parent, environment: environment)
            let node = try Node(
                configuration, id: id, logger: logger, source: source, text: text, standsInFor: problems,
                followed: followed, eventLog: EventLog.standardError,
                inherited: InheritedSockets(environment: environment))
            try node.start { control, socket in try AdminServer.start(control, on: socket, lifecycle) }
            node.logger.notice("serving", metadata: ["address": "\(node.address)"])
            RunningNode(node, parent, lifecycle).begin()
            node.wait()
            logger.notice("stopped")
        } catch {
            EventLog.standardError.write("sluice: \(error)")
            parent?.tell(.failed("\(error)"))
            throw ExitCode(1)
        }
    }

    private func load(
        _ environment: [String: String], _ parent: ParentLink?
    ) throws -> (configuration: Configuration, text: String, problems: [String]) {
        if let kept = KeptConfiguration(environment: environment), let found = try? options.load(keeping: kept) {
            return found
        }
        let (configuration, text) = try options.load(examine: Node.problems) { errors in
            EventLog.standardError.write(errors)
            parent?.tell(.failed(errors))
        }
        return (configuration, text, [])
    }

    /// Host and address tell nodes apart on one machine as well as on many.
    private static func defaultID(_ address: ListenAddress) throws -> NodeID {
        let host = HostNames.local().prefix(40)
        let own = address.host.map { "\($0)-" } ?? ""
        let text = "\(host)-\(own)\(address.port)"
        let allowed = text.map { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) ? $0 : "-" }
        return try NodeID(String(allowed.prefix(64)))
    }
}

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check a configuration and say everything that is wrong with it.",
        discussion: """
            Does all that start-up would, short of listening: certificates and keys are read, and paths of logs must \
            be writable. With --network it also connects to Redis, probes every backend once as its health section \
            says, connects to the collector of traces, and prints a line for each. \
            Exits 0 where all is well, else 1.
            """)

    @OptionGroup var options: ConfigurationOptions
    @Flag(help: "Also try Redis, the backends and the collector of traces.") var network = false

    func run() throws {
        let (configuration, _) = try options.load(examine: Node.problems)
        let ignored = Node.ignoredKeys(configuration).map { "a signing key cannot be used and is ignored: \($0)" }
        for warning in Node.warnings(configuration) + ignored { printError("\(options.config): warning: \(warning)") }
        if network, !NetworkCheck(configuration).run() { throw ExitCode(1) }
        let backends = configuration.services.reduce(0) { $0 + $1.instances.count }
        print(
            "\(options.config): ok: \(configuration.services.count) services, \(backends) backends, listening on \(configuration.gateway.port)"
        )
    }
}

/// Writes a line to standard error.
func printError(_ text: String) {
    try? OutputFile.writeError(Array("\(text)\n".utf8).span)
}
