// Where a node's configuration comes from, so that it can be read again.

package struct ConfigurationSource: Sendable {
    package let path: String
    /// `KEY=VALUE`, before what the file says.
    package let overrides: [String]
    package let environment: [String: String]

    package init(path: String, overrides: [String], environment: [String: String]) {
        self.path = path
        self.overrides = overrides
        self.environment = environment
    }

    /// The text as the file holds it now.
    package func read() throws(ConfigurationErrors) -> String {
        do throws(ConfigurationError) {
            return try ConfigurationFile.read(path)
        } catch {
            throw ConfigurationErrors([error])
        }
    }

    /// What the text means here.
    /// - Parameters:
    ///   - file: its name in errors, where it is not the file's own text.
    ///   - examine: what else is wrong with it here.
    package func parse(
        _ text: String, file: String? = nil, examine: (Configuration) -> [Finding] = { _ in [] }
    ) throws(ConfigurationErrors) -> Configuration {
        try Configuration.parse(
            text, file: file ?? path, overrides: overrides, environment: environment, examine: examine)
    }
}
