// The command line without a server behind it: tests run it against a scripted one.
#include "cli/cli.h"

int main(int argc, char** argv) { return metier::cli::cli_main(argc, argv, metier::cli::Program{.server = {}, .version = "0.0.0-test"}); }
