import ArgumentParser
import Gateway
import LinuxIO

/// The version of this build.
let version = Build.version

@main
struct Sluice: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sluice",
        abstract: "An API gateway that runs as a cluster of equal nodes around Redis.",
        discussion: """
            A node proxies HTTP to the backends of its services. Rate limits hold exactly over all nodes, and all \
            nodes share one view of which backends are alive.

            Start a node:          sluice run --config configs/gateway.yaml
            Check a configuration: sluice check --config configs/gateway.yaml
            Show the backends:     sluice backends --admin 127.0.0.1:9901
            Try it without any:    sluice backend --port 8081
            """,
        version: version,
        subcommands: [
            Run.self, Check.self, Reload.self, Config.self, Backends.self, Nodes.self, Limits.self, Keys.self,
            Top.self, Upgrade.self, DemoBackend.self,
        ])

    static func main() {
        OutputFile.fillStandard()
        main(nil)
    }
}
