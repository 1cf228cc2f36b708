"""Experiments that check attribution on real consortia: how right, how fair, how robust, how dear."""
