"""Files of private content, and documents read so that they have one meaning. Knows no content.

open_files         which process has a file open
plain_text         text from outside, made harmless where it is shown
private_files      files for their owner alone, whole and durable before anybody relies on them
spreadsheet_cells  cells of CSV that no spreadsheet takes for a formula
strict_json        JSON that is verified, read so that no other reader can read it otherwise
strict_yaml        YAML that people write, read so that it means what it seems to
"""
