"""HTTP as every caller meets it: one shape for all that goes wrong, and the OpenAPI document as a whole.

failures  turns whatever goes wrong in a request into one answer in OpenAI's shape, and gives every answer a request
          id
protocol  HTTP as clients speak it
"""
