// From a file and a command line to a checked configuration.

import Foundation
import Primitives

extension Configuration {
    /// A configuration has kilobytes; a megabyte is somebody's mistake.
    private static let fileBytesMax = 1 << 20

    /// Reads and checks a configuration.
    /// - Parameters:
    ///   - path: a YAML file.
    ///   - overrides: `KEY=VALUE` each, later ones before earlier ones, all before the file.
    ///   - environment: what `${VAR}` stands for.
    package static func load(
        path: String, overrides: [String] = [], environment: [String: String] = [:]
    ) throws(ConfigurationErrors) -> Configuration {
        func failed(_ message: String) -> ConfigurationErrors {
            ConfigurationErrors(problems: [ConfigurationProblem(place: path, message: message)])
        }
        guard FileManager.default.fileExists(atPath: path) else {
            throw failed("there is no such file: give the path of a configuration by --config")
        }
        guard let file = FileHandle(forReadingAtPath: path) else { throw failed("cannot be read: permission denied") }
        var data = Data()
        do {
            while data.count <= fileBytesMax,
                let part = try file.read(upToCount: fileBytesMax + 1 - data.count), !part.isEmpty
            {
                data.append(part)
            }
        } catch {
            throw failed("cannot be read: it must be a file with YAML in it")
        }
        guard data.count <= fileBytesMax else { throw failed("is larger than \(ByteCount.bytes(fileBytesMax))") }
        guard let text = String(data: data, encoding: .utf8) else { throw failed("is not UTF-8 text") }
        return try parse(text, name: path, overrides: overrides, environment: environment)
    }

    /// The same for text that is in memory already; `name` stands in the place of problems.
    package static func parse(
        _ yaml: String, name: String, overrides: [String] = [], environment: [String: String] = [:]
    ) throws(ConfigurationErrors) -> Configuration {
        let list = ProblemList()
        var reader = DocumentReader(name: name, environment: environment)
        let tree = reader.read(yaml)
        list.problems += reader.problems
        guard var tree else { throw ConfigurationErrors(problems: list.problems) }
        for text in overrides {
            guard let override = Override(text) else {
                list.report(.override(text), "write KEY=VALUE, for example --set gateway.port=127.0.0.2:8080")
                continue
            }
            override.apply(to: &tree, environment: environment, list: list)
        }
        let configuration = ConfigurationReader(list: list).read(tree, name: name)
        guard list.problems.isEmpty else { throw ConfigurationErrors(problems: list.problems) }
        return configuration
    }
}
